//! The syntax of container names, which also become names of files and control groups.

/// 1 to 64 characters of `A-Z a-z 0-9 _ . -`, the first a letter or digit: so neither a path, nor hidden, nor an option.
pub(crate) fn name_syntax(name: &str) -> Result<(), String> {
    let rule = "1 to 64 letters, digits, \"_\", \".\" and \"-\", the first a letter or digit";
    let good = (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if good { Ok(()) } else { Err(format!("{name:?} is not a name: {rule}")) }
}
