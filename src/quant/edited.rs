//! Whether config.json still tells how the tensors are quantized, after somebody edited it.

use std::path::PathBuf;

use indexmap::IndexSet;
use serde_json::Value;

use crate::catalog::{CONFIG_FILE, Catalog, Config};
use crate::error::setting::DTYPE;
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::quant::declared::{KEY, METHOD_KEY, MODELOPT_FILE, all_declarations, skips};
use crate::quant::schemes::{example, scheme_of, stored};
use crate::quant::skip_entries::module_of;
use crate::quant::skip_list;

/// What declares a quantization, to be compared.
#[derive(Debug, PartialEq)]
pub(crate) struct DeclarationCheck {
    declarations: Vec<Value>,
    /// Whether the declaration of another tool is there.
    by_tool: bool,
}

impl DeclarationCheck {
    /// What declares the quantization of `catalog` now; nothing if config.json cannot be read.
    pub(crate) fn new(catalog: &mut Catalog) -> Self {
        let config = catalog.config_mut().ok().flatten();
        let declarations = config.map_or_else(Vec::new, |config| all_declarations(config));
        let mut aux = catalog.aux.iter();
        DeclarationCheck {
            declarations,
            by_tool: aux.any(|entry| entry.name() == MODELOPT_FILE),
        }
    }
}

/// Checks that what the edited config.json declares is what the tensors are, as far as that shows.
///
/// # Errors
/// If tensors are quantized and nothing declares it, or block FP8 is declared to be something else.
pub(crate) fn check_declaration(catalog: &mut Catalog) -> Result<()> {
    let DeclarationCheck {
        declarations,
        by_tool,
    } = DeclarationCheck::new(catalog);
    let path = catalog.config.as_ref().map(Config::path);
    let path = path.map_or_else(|| PathBuf::from(CONFIG_FILE), |path| path.to_owned());
    let mismatch = |problem: String| {
        let error = Error::of_file(Code::ConfigMismatch, &path, problem);
        let dequantize = Hint::give(DTYPE).to("dequantize the tensors");
        error.with_hint(Hint::text("leave what declares the quantization as it is").or(dequantize))
    };
    let example = example(catalog);
    let Some(declared) = declarations.first() else {
        if example.is_empty() || by_tool {
            return Ok(());
        }
        let problem = format!(
            "nothing would declare the quantization of this view any more, whose tensors stay quantized{example}"
        );
        return Err(mismatch(problem));
    };
    if example.is_empty() {
        let method = declared.get(METHOD_KEY).unwrap_or(&Value::Null);
        let problem = format!(
            "{KEY} declares {METHOD_KEY} {method}, and no tensor of the view seems to be quantized"
        );
        let warning = Warning::new(Code::ConfigMismatch, problem).in_file(path);
        catalog.report.warnings.push(warning);
        return Ok(());
    }
    let quantized = catalog.tensors.iter().filter_map(|(name, weight)| {
        let (_, companions) = stored(&catalog.tensors, name)?;
        Some((name, weight, companions))
    });
    let mut quantized = quantized.peekable();
    if quantized.peek().is_none() {
        // In a way that only its own tools read.
        return Ok(());
    }
    let scheme = scheme_of(&declarations, &path, &example)
        .map_err(|error| mismatch(error.problem().to_owned()))?;
    let mut modules = IndexSet::new();
    for (name, weight, companions) in quantized {
        let checked = scheme.check(name, weight, &companions);
        checked.map_err(|error| {
            mismatch(format!(
                "what {KEY} declares does not fit the tensor {name}: {}",
                error.problem()
            ))
        })?;
        modules.insert(module_of(name));
    }
    let entries: IndexSet<String> = declarations.iter().flat_map(skips).collect();
    if !scheme.lists_by_name() {
        let hit = skip_list::contradictions(&entries, &modules);
        catalog.report.warnings.extend(hit);
    }
    Ok(())
}
