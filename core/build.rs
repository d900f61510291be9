//! Builds the keeper with the same rustc, without cargo, std or another target, and leaves it where `launch` embeds it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=keeper");
    println!("cargo::rerun-if-changed=src/sys/raw.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = env::var("TARGET").expect("cargo sets it");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") || !["x86_64", "aarch64"].contains(&arch.as_str()) {
        panic!("ringfence is for Linux on x86_64 and aarch64, not {target}");
    }

    let keeper = out.join("keeper");
    let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets it"));
    rustc
        .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", "ringfence_keeper"])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "lto=fat",
            "-C",
            "codegen-units=1",
            "-C",
            "strip=symbols",
        ])
        .args(["-C", "relocation-model=static", "-C", "target-feature=+crt-static"])
        // `_start` is the keeper's own; no C library, no loader, no writable memory before it asks for some.
        .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-nostdlib", "-C", "link-arg=-static"])
        .args(["-C", "link-arg=-no-pie", "-C", "link-arg=-Wl,--gc-sections,--build-id=none,-z,noexecstack,-z,norelro"])
        .arg("-Dwarnings")
        .arg(manifest.join("keeper/main.rs"))
        .arg("-o")
        .arg(&keeper);
    if env::var("HOST").as_deref() != Ok(target.as_str()) {
        rustc.args(["--target", &target]);
        let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
        if let Some(linker) = env::var_os(variable) {
            rustc.arg("-C").arg(format!("linker={}", linker.to_string_lossy()));
        }
    }
    let output = rustc.output().expect("rustc starts");
    if !output.status.success() {
        panic!("the keeper does not build:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let size = std::fs::metadata(&keeper).expect("it was just built").len();
    assert!(size <= 64 * 1024, "the keeper has {size} bytes; it is to stay below 64 KiB");
}
