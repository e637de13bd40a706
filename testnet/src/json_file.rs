//! Reports as files: whole, or not at all. What was there before stays until the new one is written.
//!
//! It refuses that for what is no plain file, as `/dev/stdout`: nothing can be put in its place.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a report, if a file was asked for.
pub(crate) fn write<T: Serialize>(file: Option<&Path>, report: &T) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    put(file, json.as_bytes()).with_context(|| format!("cannot write the report to {}", file.display()))
}

fn put(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return fs::write(file, bytes);
    }
    // What a link names is replaced, not the link.
    let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let mut beside = file.clone().into_os_string();
    beside.push(format!(".partial-{}", std::process::id()));
    let written = File::create(&beside).and_then(|mut partial| {
        partial.write_all(bytes)?;
        partial.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&beside, &file));
    if renamed.is_err() {
        // What cannot be removed has a name that says what it is.
        let _ = fs::remove_file(&beside);
    }
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_another_and_one_that_cannot_be_written_leaves_it() {
        let directory = std::env::temp_dir().join(format!("dm-json-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let (file, link) = (directory.join("report.json"), directory.join("link.json"));
        write(Some(&file), &[1]).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let read_before = File::open(&file).unwrap();
        write(Some(&link), &[2]).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "[\n  2\n]\n");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // Who has begun to read the former one reads all of it.
        assert_eq!(io::read_to_string(read_before).unwrap(), "[\n  1\n]\n");
        assert!(write(Some(&directory.join("absent/report.json")), &[3]).is_err());
        assert!(write(Some(&directory), &[3]).is_err());
        write(Some(Path::new("/dev/null")), &[4]).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "nothing else is left");
        fs::remove_dir_all(&directory).unwrap();
    }
}
