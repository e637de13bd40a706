//! Reports as files: whole, or not at all.

use anyhow::{Context, Result};
use serde::Serialize;
use std::path::Path;

/// Writes a report, if a file was asked for.
pub(crate) fn write<T: Serialize>(file: Option<&Path>, report: &T) -> Result<()> {
    let Some(file) = file else { return Ok(()) };
    let mut json = serde_json::to_string_pretty(report)?;
    json.push('\n');
    std::fs::write(file, json).with_context(|| format!("cannot write the report to {}", file.display()))
}
