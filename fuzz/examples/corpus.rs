//! Writes what the corpora begin with anew, from real values: `cargo run --package driftmesh-fuzz --example corpus`. Inputs
//! that were found stay.

use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    for target in driftmesh_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        fs::create_dir_all(&folder)?;
        for file in fs::read_dir(&folder)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with("seed-") {
                fs::remove_file(file.path())?;
            }
        }
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            fs::write(folder.join(format!("seed-{number:03}")), seed)?;
        }
    }
    Ok(())
}
