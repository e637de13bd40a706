//! The folder into which histories are dumped for outside judges.
//!
//! It refuses to begin with a folder that nothing can be written to: a run may be long.

use anyhow::{Context, Result};
use driftmesh_sim::dump::Dumped;
use std::path::{Path, PathBuf};

/// A folder that exists.
#[derive(Debug)]
pub(crate) struct DumpFolder(PathBuf);

impl DumpFolder {
    /// Creates it, unless it is there.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let why = || format!("--dump {}: cannot write there", folder.display());
        std::fs::create_dir_all(folder).with_context(why)?;
        let probe = folder.join(format!(".probe-{}", std::process::id()));
        std::fs::write(&probe, "").with_context(why)?;
        std::fs::remove_file(&probe).with_context(why)?;
        Ok(Self(folder.to_owned()))
    }

    /// Writes the two files of a run.
    pub(crate) fn write(&self, name: &str, dumped: &Dumped) -> Result<()> {
        for (extension, text) in [("edn", &dumped.edn), ("json", &dumped.json)] {
            let file = self.0.join(format!("{name}.{extension}"));
            std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }
}
