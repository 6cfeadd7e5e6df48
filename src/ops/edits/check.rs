//! Whether what was edited is still true when the view is finished.

use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, OperatorReport};
use crate::error::setting::{DTYPE, SET};
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::named::Named;
use crate::ops::edits::change::{Change, shortened};
use crate::ops::edits::document::Document;
use crate::ops::edits::files;
use crate::ops::edits::target::{Step, Target};
use crate::ops::{Precision, is_convertible};
use crate::quant;
use crate::source::AuxEntry;

/// Says that edits change what declares a quantization.
#[derive(Debug)]
pub(super) struct Declared;

impl OperatorReport for Declared {}

/// Checks that what edits set in config.json is what the view has there: its operators may have
/// written something else since.
///
/// # Errors
/// If they have.
pub(super) fn overwritten(changes: &[Change], catalog: &mut Catalog) -> Result<()> {
    let Some((edited, finished)) = before_and_after(catalog) else {
        return Ok(());
    };
    for change in changes {
        match change {
            Change::Set { target, .. } if target.file == CONFIG_FILE => {
                let path = &target.path.0;
                let (set, written) = (edited.get(path), finished.get(path));
                if let Some(set) = set
                    && !is_same(set, written)
                {
                    return Err(conflict(target, set, written));
                }
            }
            Change::Unset(target) if target.file == CONFIG_FILE => {
                let path = &target.path.0;
                if edited.get(path).is_none() && finished.get(path).is_some() {
                    let note = format!(
                        "{CONFIG_FILE}: what the base has as {} is taken away, and the view writes its own",
                        target.path
                    );
                    catalog.report.notes.push(note);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// config.json as edits left it and as the view has it, if operators edited it too.
fn before_and_after(catalog: &Catalog) -> Option<(Document, Document)> {
    let finished = catalog.config.as_ref()?.edited_text()?;
    let Some(AuxEntry::Edited { text: edited, .. }) = files::find(&catalog.aux, CONFIG_FILE) else {
        return None;
    };
    let edited = Document::parse(edited).ok()?;
    Some((edited, Document::parse(finished.as_bytes()).ok()?))
}

fn is_same(set: &str, written: Option<&str>) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    // Who asks for a key that is not there gets null.
    let written = written.unwrap_or("null");
    set == written || value(set).is_some() && value(set) == value(written)
}

fn conflict(target: &Target, set: &str, written: Option<&str>) -> Error {
    let problem = match written {
        Some(written) => format!(
            "the view writes {} there itself, and it is set to {}",
            shortened(written),
            shortened(set)
        ),
        None => "the view takes this key away itself, and it is set".to_owned(),
    };
    let error = Error::new(Code::EditConflict, problem);
    let error = error.about_value(SET, format!("{target}={}", shortened(set)));
    error.with_hint("leave this edit out, or what makes the view write that key")
}

/// Checks that a key which is set to `value`, and is `now` something else, was not written by the
/// merge that the view starts from.
///
/// # Errors
/// If it was.
pub(super) fn merged(
    catalog: &Catalog,
    target: &Target,
    value: &str,
    now: Option<&str>,
) -> Result<()> {
    let Some(config) = &catalog.config else {
        return Ok(());
    };
    let is_key =
        |step: Option<&Step>, name: &str| matches!(step, Some(Step::Key(key)) if key == name);
    let path = &target.path.0;
    let mut written = config.edits().keys();
    let is_written = written.any(|written| {
        let inside = written.split_once('.');
        is_key(path.first(), written)
            || inside.is_some_and(|(outer, key)| {
                is_key(path.first(), outer) && (path.len() == 1 || is_key(path.get(1), key))
            })
    });
    if is_written && !is_same(value, now) {
        return Err(conflict(target, value, now));
    }
    Ok(())
}

/// Warns of a dtype that is set and that no tensor has.
pub(super) fn dtypes(changes: &[Change], catalog: &mut Catalog) {
    let mut warnings = Vec::new();
    for change in changes {
        let Change::Set { target, value } = change else {
            continue;
        };
        let is_dtype = matches!(
            target.path.0.last(),
            Some(Step::Key(key)) if key == "dtype" || key == "torch_dtype"
        );
        if target.file != CONFIG_FILE || !is_dtype {
            continue;
        }
        let name = serde_json::from_str::<String>(value).unwrap_or_default();
        let Some(dtype) = Precision::named(name.trim_start_matches("torch.")) else {
            continue;
        };
        let floating = catalog.tensors.values().map(|tensor| tensor.dtype);
        let mut floating = floating.filter(|dtype| is_convertible(*dtype)).peekable();
        if floating.peek().is_some() && !floating.any(|found| found == dtype.dtype()) {
            let problem = "no tensor of the view has this dtype, and a loader that goes by it converts all of them";
            let warning = Warning::new(Code::ConfigMismatch, problem);
            let warning = warning.about_value(SET, format!("{target}={value}"));
            let convert = Hint::give_value(DTYPE, dtype.name()).to("convert the tensors");
            warnings.push(warning.with_hint(convert));
        }
    }
    catalog.report.warnings.extend(warnings);
}

/// Checks what config.json declares of quantization against the tensors, if edits change that.
///
/// # Errors
/// If it is not true.
pub(super) fn declaration(catalog: &mut Catalog) -> Result<()> {
    if catalog.report.reports::<Declared>().next().is_some() {
        quant::check_declaration(catalog)?;
    }
    Ok(())
}
