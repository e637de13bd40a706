//! `cargo testnet check`: whether dumped histories are such as snapshot isolation allows.
//!
//! It refuses to pass what it cannot read, and a folder without histories. What is a violation, the simulator's checker
//! decides.

use crate::numbers::grouped;
use crate::options::CheckOptions;
use crate::output;
use anyhow::{Context, Result, bail};
use driftmesh_sim::dump::{Rejected, check_edn, check_json};
use std::path::{Path, PathBuf};

/// Violations of one file that are told in full.
const TOLD_MAX: usize = 8;

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Lists,
    Registers,
}

impl Format {
    /// By the file's name.
    fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "edn" => Some(Self::Lists),
            "json" => Some(Self::Registers),
            _ => None,
        }
    }
}

/// Checks all files. `Ok(false)` when one is no valid history.
pub(crate) fn run(options: &CheckOptions) -> Result<bool> {
    let mut files = Vec::new();
    for path in &options.paths {
        files.append(&mut histories(path)?);
    }
    let mut invalid = 0_u64;
    for (file, format) in &files {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        match check(*format, &text) {
            Ok(summary) => output::line(&format!("{}: valid: {summary}", file.display())),
            Err(rejected) => {
                invalid += 1;
                told(file, &rejected).iter().for_each(|line| output::line(line));
            }
        }
    }
    output::line(&format!("{} histories, {} of them not valid", grouped(files.len() as u64), grouped(invalid)));
    Ok(invalid == 0)
}

/// What is wrong with the histories in a folder, for people; nothing when all are valid.
pub(crate) fn faults_in(folder: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (file, format) in histories(folder)? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        if let Err(rejected) = check(format, &text) {
            wrong.append(&mut told(&file, &rejected));
        }
    }
    Ok(wrong)
}

/// The histories at a path: a file, or all those in a folder.
fn histories(path: &Path) -> Result<Vec<(PathBuf, Format)>> {
    let why = || format!("cannot read {}", path.display());
    if !path.is_dir() {
        path.metadata().with_context(why)?;
        let Some(format) = Format::of(path) else {
            bail!("{}: histories are .edn files (lists) and .json files (registers)", path.display())
        };
        return Ok(vec![(path.to_owned(), format)]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).with_context(why)? {
        let file = entry.with_context(why)?.path();
        found.extend(Format::of(&file).map(|format| (file, format)));
    }
    if found.is_empty() {
        bail!("{}: no .edn and no .json file is in it", path.display());
    }
    found.sort_by_key(|(file, _)| in_order(file));
    Ok(found)
}

/// Seeds in the order of their numbers, then the rest by name.
fn in_order(file: &Path) -> (bool, u64, PathBuf) {
    let seed = file.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok());
    (seed.is_none(), seed.unwrap_or(0), file.to_owned())
}

fn check(format: Format, text: &str) -> Result<String, Rejected> {
    match format {
        Format::Lists => check_edn(text).map(|found| {
            format!(
                "{} commits, {} failed, {} unknown, of {} processes; {} appends and {} reads of {} lists",
                found.committed, found.failed, found.unknown, found.processes, found.appends, found.reads, found.keys
            )
        }),
        Format::Registers => check_json(text).map(|found| {
            format!(
                "{} commits in {} sessions; {} writes and {} reads of {} registers",
                found.committed, found.sessions, found.writes, found.reads, found.registers
            )
        }),
    }
}

/// Why a file is rejected, for people.
fn told(file: &Path, rejected: &Rejected) -> Vec<String> {
    let file = file.display();
    match rejected {
        Rejected::BadFile(bad) => vec![format!("{file}: no history: {bad}")],
        Rejected::Invalid(faults) => {
            let mut told: Vec<String> =
                faults.iter().take(TOLD_MAX).map(|fault| format!("{file}: VIOLATION: {fault}")).collect();
            if faults.len() > TOLD_MAX {
                told.push(format!("{file}: {} violations in all", faults.len()));
            }
            told
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files, which is removed in the end.
    struct Folder(PathBuf);

    impl Folder {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let folder = std::env::temp_dir().join(format!("driftmesh-check-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            for (file, text) in files {
                std::fs::write(folder.join(file), text).unwrap();
            }
            Self(folder)
        }

        fn checked(&self, file: &str) -> Result<bool> {
            run(&CheckOptions { paths: vec![self.0.join(file)] })
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    const VALID: &str = "{:index 0 :time 0 :process 0 :type :invoke :f :txn :value [[:r 1 nil]]}
{:index 1 :time 0 :process 0 :type :ok :f :txn :value [[:r 1 []]]}\n";

    #[test]
    fn valid_files_pass_and_others_do_not() {
        let invalid = VALID.replace("[]", "[7]");
        let folder =
            Folder::with("files", &[("1.edn", VALID), ("2.edn", &invalid), ("3.edn", "{:index"), ("note.txt", "")]);
        assert!(folder.checked("1.edn").unwrap());
        assert!(!folder.checked("2.edn").unwrap());
        assert!(!folder.checked("3.edn").unwrap());
        assert!(!folder.checked("").unwrap());
        assert!(folder.checked("note.txt").unwrap_err().to_string().contains("histories are .edn files"));
        assert!(folder.checked("none.edn").is_err());
    }

    #[test]
    fn a_folder_without_histories_does_not_pass() {
        let folder = Folder::with("empty", &[("note.txt", "")]);
        assert!(folder.checked("").unwrap_err().to_string().contains("no .edn and no .json"));
    }

    #[test]
    fn seeds_come_in_the_order_of_their_numbers() {
        let folder = Folder::with("order", &[("10.edn", ""), ("9.json", ""), ("9.edn", ""), ("real.edn", "")]);
        let names: Vec<String> = histories(&folder.0)
            .unwrap()
            .into_iter()
            .map(|(file, _)| file.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["9.edn", "9.json", "10.edn", "real.edn"]);
    }
}
