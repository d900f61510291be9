//! Version, schema, strings.

use std::ffi::{CString, c_char};
use std::ptr;

use crate::border::{border, give_string, quietly};
use crate::error::ringfence_error;

/// The version of this header: major * 65536 + minor * 256 + patch. Compare with ringfence_version_number() of the library.
pub const RINGFENCE_VERSION_NUMBER: u32 = 0x000100;

/// The version of the library as text, like "0.1.0". Never NULL; lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn ringfence_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The version of the library as a number: major * 65536 + minor * 256 + patch.
#[unsafe(no_mangle)]
pub extern "C" fn ringfence_version_number() -> u32 {
    RINGFENCE_VERSION_NUMBER
}

/// The JSON schema (draft 2020-12) of a spec, generated from the fields that this library knows.
///
/// Returns a string for ringfence_string_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_schema_json(err: *mut *mut ringfence_error) -> *mut c_char {
    border(err, ptr::null_mut(), || Ok(give_string(ringfence::spec::schema_json())))
}

/// Frees a char * that a function of this library returned. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ringfence_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: by the header's contract it came from `give_string` and is given back once.
        quietly(|| drop(unsafe { CString::from_raw(text) }));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_number_is_the_version_of_the_package() {
        let mut parts = env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse::<u32>().unwrap());
        let number = parts.next().unwrap() << 16 | parts.next().unwrap() << 8 | parts.next().unwrap();
        assert_eq!(number, super::RINGFENCE_VERSION_NUMBER);
    }
}
