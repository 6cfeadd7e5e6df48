//! What config.json says: read from a source, and declared of a view.

use std::ffi::OsString;
use std::sync::Arc;

use indexmap::IndexSet;
use serde_json::{Value, json};

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::DIALECT;
use crate::error::{Code, Error, Hint, Result, Warning};
use crate::quant::compressed_tensors;
use crate::quant::declared::{
    GROUPS_KEY, KEY, METHOD_KEY, MODELOPT_FILE, SKIP_KEY, TARGETS_KEY, TEXT_CONFIG, hide_modelopt,
};
use crate::quant::microscaling::encode::Arithmetic;
use crate::quant::microscaling::format::Form;
use crate::quant::scheme::Scheme;
use crate::quant::skip_entries::module_of;
use crate::quant::skip_list;
use crate::source::{AuxEntry, Derived};
use crate::tensor::Name;
use crate::text::listing;

const COMPRESSED_TENSORS: &str = "compressed-tensors";
const MODELOPT: &str = "modelopt";
const MXFP4: &str = "mxfp4";
/// Where ModelOpt says which of its formats weights have.
const ALGORITHM: &str = "quant_algo";
/// Where compressed-tensors and ModelOpt list modules that stay as they are, in config.json.
const IGNORE: &str = "ignore";

/// The form of the weights that `declaration` describes, if it is one of these.
pub(super) fn form(declaration: &Value) -> Option<Form> {
    match declaration.get(METHOD_KEY)?.as_str()? {
        COMPRESSED_TENSORS => of_groups(declaration),
        MXFP4 => Some(Form::GptOss),
        // Older ones have the version of the format after it.
        method if method.starts_with(MODELOPT) => {
            let older = declaration["quantization"].get(ALGORITHM);
            let algorithm = older.or(declaration.get(ALGORITHM))?.as_str()?;
            match &*algorithm.to_ascii_uppercase() {
                "NVFP4" | "W4A16_NVFP4" => Some(Form::Nvfp4Modelopt),
                "MXFP8" => Some(Form::Mxfp8),
                "MXFP4" => Some(Form::Mxfp4Modelopt),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The form that all groups of a declaration of compressed-tensors have.
fn of_groups(declaration: &Value) -> Option<Form> {
    let groups = declaration.get(GROUPS_KEY)?.as_object()?.values();
    let groups = groups.filter(|group| group.get("weights").is_some_and(Value::is_object));
    let mut forms = groups.map(|group| {
        let format = [group, declaration].map(|object| object["format"].as_str());
        let format = format.into_iter().flatten().next()?;
        let weights = &group["weights"];
        let is_symmetric = weights["symmetric"].as_bool() != Some(false);
        let number = |key: &str| weights[key].as_u64();
        let is_float = weights["type"] == "float" && is_symmetric;
        // Columns of a group that are not next to each other.
        let order = &weights["actorder"];
        let is_reordered = *order == true
            || (order.as_str()).is_some_and(|order| ["group", "dynamic"].contains(&order));
        let found = (number("num_bits")?, number("group_size")?, format);
        let form = match found {
            (4, 16, "nvfp4-pack-quantized") => Form::Nvfp4,
            (4, 32, "mxfp4-pack-quantized") => Form::Mxfp4,
            (8, 32, "mxfp8-quantized") => Form::Mxfp8,
            _ => return None,
        };
        (is_float && !is_reordered).then_some(form)
    });
    let first = forms.next()??;
    forms.all(|form| form == Some(first)).then_some(first)
}

/// Checks that the base can be described so.
///
/// # Errors
/// If it cannot.
pub(super) fn check_base(catalog: &mut Catalog, form: Form) -> Result<()> {
    compressed_tensors::check_base(catalog)?;
    if form != Form::GptOss {
        return Ok(());
    }
    let config = catalog.config_mut()?.expect("it is there, as was checked");
    let model_type = config.get("model_type").unwrap_or(Value::Null);
    if model_type == "gpt_oss" {
        return Ok(());
    }
    let problem = format!(
        "model_type is {model_type}; only gpt_oss has experts of this dialect, transposed, with gate and up by turns"
    );
    let error = Error::of_file(Code::ExpertsLayout, config.path(), problem);
    Err(error.with_hint(Hint::leave_out(DIALECT)))
}

/// Declares that the tensors `quantized` of the finished catalog are of this form, which is that of `scheme`.
pub(super) fn declare(
    catalog: &mut Catalog,
    scheme: &dyn Scheme,
    form: Form,
    arithmetic: Arithmetic,
    quantized: &IndexSet<Name>,
) -> Result<()> {
    if quantized.is_empty() {
        return Ok(());
    }
    let skipped = skip_list::build(scheme, catalog, quantized, Vec::new());
    let skipped: Vec<String> = skipped.entries.into_iter().collect();
    hide_modelopt(catalog, &format!("{KEY} in {CONFIG_FILE} takes its place"));
    let declaration = match arithmetic {
        Arithmetic::CompressedTensors => of_compressed_tensors(form, &skipped),
        Arithmetic::Triton => json!({METHOD_KEY: MXFP4, SKIP_KEY: skipped}),
        Arithmetic::Modelopt => {
            warn_of_parts(catalog, &skipped, quantized);
            add_modelopt_file(catalog, form, &skipped)?;
            of_modelopt(form, &skipped)
        }
    };
    let config = catalog
        .config_mut()?
        .expect("check_base found a config.json");
    config.set(KEY, &declaration);
    config.remove_in(TEXT_CONFIG, KEY)
}

fn of_compressed_tensors(form: Form, ignored: &[String]) -> Value {
    let (format, strategy, scale_dtype) = match form {
        Form::Nvfp4 => (
            "nvfp4-pack-quantized",
            "tensor_group",
            "torch.float8_e4m3fn",
        ),
        Form::Mxfp8 => ("mxfp8-quantized", "group", "torch.uint8"),
        _ => ("mxfp4-pack-quantized", "group", "torch.uint8"),
    };
    let arguments = |dynamic: bool| {
        json!({
            "num_bits": form.bits(),
            "type": "float",
            "symmetric": true,
            "strategy": strategy,
            "group_size": form.group(),
            "block_structure": null,
            "dynamic": dynamic,
            "actorder": null,
            "scale_dtype": scale_dtype,
            "zp_dtype": scale_dtype,
            "observer": if dynamic { Value::Null } else { "memoryless_minmax".into() },
            "observer_kwargs": {},
        })
    };
    // Codes of 8 bits are for products of 8 bits, and activations become these while a model runs.
    let activations = match form {
        Form::Mxfp8 => arguments(true),
        _ => Value::Null,
    };
    json!({
        METHOD_KEY: COMPRESSED_TENSORS,
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        GROUPS_KEY: {
            "group_0": {
                TARGETS_KEY: ["Linear"],
                "weights": arguments(false),
                "input_activations": activations,
                "output_activations": null,
                "format": format,
            },
        },
        IGNORE: ignored,
    })
}

/// How ModelOpt calls a form.
fn algorithm(form: Form) -> &'static str {
    match form {
        Form::Mxfp8 => "MXFP8",
        Form::Mxfp4Modelopt => MXFP4,
        _ => "W4A16_NVFP4",
    }
}

/// As ModelOpt writes it to config.json.
fn of_modelopt(form: Form, ignored: &[String]) -> Value {
    let mut declaration = json!({
        METHOD_KEY: MODELOPT,
        ALGORITHM: algorithm(form),
        IGNORE: ignored,
    });
    if form == Form::Nvfp4Modelopt {
        declaration[GROUPS_KEY] = json!({
            "group_0": {
                TARGETS_KEY: ["Linear"],
                "weights": {
                    "dynamic": false,
                    "num_bits": form.bits(),
                    "type": "float",
                    "group_size": form.group(),
                },
            },
        });
    }
    declaration
}

/// Adds the file of its own that ModelOpt writes too, and that some engines read.
fn add_modelopt_file(catalog: &mut Catalog, form: Form, ignored: &[String]) -> Result<()> {
    let declaration = json!({
        "producer": {"name": "ckptfs"},
        "quantization": {
            ALGORITHM: algorithm(form),
            "kv_cache_quant_algo": null,
            "group_size": form.group(),
            "exclude_modules": ignored,
        },
    });
    let text = serde_json::to_vec_pretty(&declaration).expect("text is JSON");
    let config = catalog
        .config_mut()?
        .expect("check_base found a config.json");
    let file = Arc::new(Derived::new(config.file().clone(), MODELOPT_FILE, text));
    catalog.aux.push(AuxEntry::File {
        name: OsString::from(MODELOPT_FILE),
        file,
    });
    catalog.aux.sort_by(|a, b| a.name().cmp(b.name()));
    let note = format!("{MODELOPT_FILE} is added, as ModelOpt writes it");
    catalog.report.notes.push(note);
    Ok(())
}

/// Warns of modules that vLLM takes for unquantized: of ModelOpt, it looks for entries in parts of names.
fn warn_of_parts(catalog: &mut Catalog, skipped: &[String], quantized: &IndexSet<Name>) {
    let modules = quantized.iter().map(|name| module_of(name));
    let hit = modules.filter_map(|module| {
        let entry = skipped
            .iter()
            .find(|entry| module.contains(entry.as_str()))?;
        Some(format!("{module} by the entry {entry}"))
    });
    let hit: Vec<String> = hit.collect();
    if !hit.is_empty() {
        let problem = format!(
            "vLLM will take quantized modules for unquantized ones, because it matches what ModelOpt ignores by parts of names: {}",
            listing(&hit)
        );
        let warning = Warning::new(Code::SkipList, problem);
        catalog.report.warnings.push(warning);
    }
}

/// The key that has the modules which stay as they are.
pub(super) fn list_key(form: Form) -> &'static str {
    match form {
        Form::GptOss => SKIP_KEY,
        _ => IGNORE,
    }
}
