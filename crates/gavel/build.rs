//! The built-in languages are embedded: build again when a folder of theirs changes.

fn main() {
    println!("cargo::rerun-if-changed=../../languages");
}
