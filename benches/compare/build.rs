//! Links the C libraries that are measured as rivals.

fn main() {
    println!("cargo:rustc-link-lib=crypto");
    println!("cargo:rustc-link-lib=gcrypt");
    println!("cargo:rerun-if-changed=build.rs");
}
