//! From a request back to a recipe that says the same.

use std::path::Path;

use crate::error::{Error, Result};
use crate::ops::{Experts, PartialBlocks, Precision};
use crate::quant::fp8_block::ScaleFormat;
use crate::recipe::document::Document;
use crate::recipe::from_file::MergeRequest;
use crate::recipe::quoted::{float, text, tree};
use crate::recipe::yaml::{Node, Value};
use crate::recipe::{DEFAULT_SHARD_BYTES, Fp8Request, Repack, ViewRequest, yaml};
use crate::shown::Show;

impl ViewRequest {
    /// The text of a recipe of this view. Paths stand in it as they are here: absolute ones mean
    /// the same wherever the recipe lies.
    ///
    /// # Errors
    /// If a recipe cannot say it: a path that is not UTF-8, more text than a recipe may have, or a
    /// quantization of nothing.
    pub fn to_recipe(&self) -> Result<String> {
        let mut recipe = String::new();
        match &self.merge {
            None => recipe += &format!("base: {}\n", model(&self.base)?),
            Some(merge) => of_merge(merge, &mut recipe),
        }
        let view = self.view_section()?;
        if !view.is_empty() {
            recipe += "view:\n";
            recipe += &view;
        }
        self.check(&recipe)?;
        Ok(recipe)
    }

    /// What stands under `view`, in the order in which it is applied.
    fn view_section(&self) -> Result<String> {
        let mut view = Lines::default();
        if let Some(merge) = &self.merge {
            view.models(merge)?;
            for key in ["seed", "truncate_embeddings"] {
                if let Some(node) = get(&merge.root, "view").and_then(|node| get(node, key)) {
                    let mut value = String::new();
                    tree(node, 4, &mut value);
                    view.0 += &format!("  {key}:{value}");
                }
            }
        }
        if !self.loras.is_empty() {
            view.0 += "  lora:  # merged in this order\n";
            for lora in &self.loras {
                view.0 += &format!("    - path: {}\n", path(&lora.adapter)?);
                view.0 += &format!("      weight: {}\n", float(lora.weight));
            }
        }
        if !self.extras.is_empty() {
            view.0 +=
                "  patch:  # give the tensors that are not there yet, the first that has one\n";
            for extra in &self.extras {
                view.0 += &format!("    - {}\n", model(extra)?);
            }
        }
        view.texts(
            2,
            "rename",
            "REGEX=REPLACEMENT, in this order",
            &self.renames,
        );
        view.texts(2, "only", "keeps the tensors of these names", &self.only);
        view.texts(
            2,
            "drop",
            "leaves out the tensors of these names",
            &self.drop,
        );
        if let Some(dtype) = self.dtype {
            view.one(
                2,
                "dtype",
                match dtype {
                    Precision::Bf16 => "bf16",
                    Precision::F16 => "f16",
                    Precision::F32 => "f32",
                },
            );
        }
        if let Some(experts) = self.experts {
            view.one(
                2,
                "experts",
                match experts {
                    Experts::Unfuse => "unfuse",
                    Experts::Fuse => "fuse",
                },
            );
        }
        if let Some(fp8) = &self.fp8 {
            view.fp8(fp8)?;
        }
        match self.repack {
            Repack::Auto => {}
            Repack::Always => view.one(2, "repack", "true"),
            Repack::Never => view.one(2, "repack", "false"),
            Repack::SingleFile => view.one(2, "single_file", "true"),
        }
        if self.shard_bytes != DEFAULT_SHARD_BYTES {
            view.one(2, "shard_size", &size(self.shard_bytes));
        }
        Ok(view.0)
    }

    /// Reads `recipe` again.
    fn check(&self, recipe: &str) -> Result<()> {
        let unsayable = |problem: String| {
            Err(Error::Request(format!(
                "a recipe cannot say this view: {problem}"
            )))
        };
        if recipe.len() > yaml::MOST_BYTES {
            return unsayable(format!(
                "it would have more than {} bytes",
                yaml::MOST_BYTES
            ));
        }
        match Document::parse(recipe, Path::new("the recipe")) {
            Ok(_) => Ok(()),
            Err(error) => unsayable(error.to_string()),
        }
    }
}

/// The merge as its recipe has it, without what follows it.
fn of_merge(merge: &MergeRequest, recipe: &mut String) {
    let Value::Map(entries) = &merge.root.value else {
        unreachable!("a recipe is a map");
    };
    for (key, node) in entries.iter().filter(|(key, _)| key.text != "view") {
        *recipe += &format!("{}:", text(&key.text));
        tree(node, 2, recipe);
    }
}

fn get<'a>(node: &'a Node, key: &str) -> Option<&'a Node> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let found = entries.iter().find(|(found, _)| found.text == key);
    found.map(|(_, node)| node)
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn one(&mut self, indent: usize, key: &str, value: &str) {
        self.0 += &format!("{:indent$}{key}: {value}\n", "");
    }

    /// A list of texts, if there are any.
    fn texts(&mut self, indent: usize, key: &str, what: &str, texts: &[String]) {
        if texts.is_empty() {
            return;
        }
        self.0 += &format!("{:indent$}{key}:  # {what}\n", "");
        for value in texts {
            self.0 += &format!("{:indent$}  - {}\n", "", text(value));
        }
    }

    /// Where the models of a merge are.
    fn models(&mut self, merge: &MergeRequest) -> Result<()> {
        let mut seen: Vec<&(String, std::path::PathBuf)> = Vec::new();
        self.0 += "  models:  # what the merge calls them, and where they are\n";
        for named in &merge.found {
            match seen.iter().find(|(id, _)| *id == named.0) {
                Some(other) if other.1 == named.1 => continue,
                Some(_) => {
                    return Err(Error::Request(format!(
                        "a recipe cannot say this view: {} names two directories",
                        named.0
                    )));
                }
                None => seen.push(named),
            }
            self.0 += &format!("    {}: {}\n", text(&named.0), path(&named.1)?);
        }
        Ok(())
    }

    fn fp8(&mut self, fp8: &Fp8Request) -> Result<()> {
        let Fp8Request {
            rules,
            references,
            patterns,
            scale_format,
            partial_blocks,
        } = fp8;
        self.0 += "  fp8:  # what any of these selects is quantized\n";
        self.one(4, "rules", if *rules { "true" } else { "false" });
        if !references.is_empty() {
            self.0 += "    references:  # quantize what is quantized there\n";
            for reference in references {
                self.0 += &format!("      - {}\n", model(reference)?);
            }
        }
        self.texts(
            4,
            "patterns",
            "quantize the tensors of these names",
            patterns,
        );
        self.one(
            4,
            "scale_fmt",
            match scale_format {
                ScaleFormat::Ue8m0 => "ue8m0",
                ScaleFormat::Float32 => "float32",
            },
        );
        self.one(
            4,
            "partial_blocks",
            match partial_blocks {
                PartialBlocks::Quantize => "quantize",
                PartialBlocks::Keep => "keep",
            },
        );
        Ok(())
    }
}

/// A path that stands for itself.
fn path(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(path) => Ok(text(path)),
        None => Err(Error::Request(format!(
            "a recipe cannot say this view: {} is not UTF-8; give it another name, or a link that has one",
            path.shown()
        ))),
    }
}

/// A directory where a model can be named.
fn model(directory: &Path) -> Result<String> {
    let shown = path(directory)?;
    // These mean something in the name of a model.
    match directory.as_os_str().as_encoded_bytes() {
        name if name.contains(&b'+') || name.contains(&b'@') => Ok(format!("{{path: {shown}}}")),
        _ => Ok(shown),
    }
}

/// A number of bytes in the largest unit that gives a whole number.
fn size(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units
        .iter()
        .find(|(_, shift)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    match whole {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}
