//! Link arguments of the shared library that cargo itself makes, so that it behaves like the installed one.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libringfence.so.0");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
