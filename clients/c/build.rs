//! Gives the shared library its name and keeps it loaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Programs record this name. The number changes when the interface does so that they would break.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libttmem.so.0");
    // Its thread and its handler of fork() would run into nothing if a dlclose() unmapped it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
