//! The document of a recipe: a merge as mergekit describes it, and under `view` what follows it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::setting::BASE;
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::lanes::Precision;
use crate::named::Named;
use crate::ops::merge::{
    Definition, Inputs, ModelId, ModelInput, ModelName, Module, Modules, Parameter, Place, Slice,
    SliceInput, Vocabulary, method,
};
use crate::recipe::models::Reference;
use crate::recipe::settings::settings;
use crate::recipe::view_section::ViewSection;
use crate::recipe::yaml::{self, Fields, Node, Value};
use crate::source::missing;
use crate::source::with_room;
use crate::tensor::Dtype;

/// A recipe, parsed. No model was looked for yet.
#[derive(Debug)]
pub(super) struct Document {
    /// All of it, as it stands.
    pub root: Node,
    pub start: Start,
    pub view: ViewSection,
}

/// What a view starts from.
#[derive(Debug)]
pub(super) enum Start {
    Base(Reference, Place),
    Merge {
        definition: Definition,
        /// As [`Definition::models`].
        references: Vec<Reference>,
    },
}

impl Start {
    /// The models that it names.
    pub(super) fn references(&self) -> &[Reference] {
        match self {
            Start::Base(reference, _) => std::slice::from_ref(reference),
            Start::Merge { references, .. } => references,
        }
    }
}

const KEYS: &[&str] = &[
    "models",
    "slices",
    "modules",
    "merge_method",
    "base_model",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "base",
    "view",
];

impl Document {
    /// Reads the recipe `path`.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = with_room(|| File::open(path)).map_err(|e| match e.kind() {
            ErrorKind::NotFound => missing(path, "recipe"),
            _ => Error::io("open", path, e),
        })?;
        if path.is_dir() {
            let problem = "this is a directory, and a recipe is a file";
            let error = Error::of_file(Code::WrongFileKind, path, problem);
            return Err(error.with_hint(Hint::give(BASE).to("start from a checkpoint directory")));
        }
        let mut text = Vec::new();
        let read = file
            .take(yaml::MOST_BYTES as u64 + 1)
            .read_to_end(&mut text);
        read.map_err(|e| Error::io("read", path, e))?;
        if text.len() > yaml::MOST_BYTES {
            let problem = format!(
                "it has more than {} bytes; a recipe is shorter",
                yaml::MOST_BYTES
            );
            return Err(Error::of_file(Code::OverLimit, path, problem));
        }
        let text = String::from_utf8(text).map_err(|e| {
            Error::of_file(Code::RecipeSyntax, path, format!("not valid UTF-8: {e}"))
        })?;
        // YAML may begin with a byte order mark.
        Self::parse(text.strip_prefix('\u{feff}').unwrap_or(&text), path)
    }

    /// Parses `text`, the content of `path`.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self> {
        let root = yaml::parse(text, &Arc::from(path))?;
        let fields = Fields::new(&root, "a recipe", KEYS)?;
        let view = match fields.get("view") {
            Some(view) => ViewSection::parse(view)?,
            None => ViewSection::default(),
        };
        let start = match fields.get("base") {
            Some(base) => base_alone(&fields, base)?,
            None => MergeReader::parse(&fields, &root.place, &view)?,
        };
        if let (Start::Base(..), Some(place)) = (&start, &view.truncate_embeddings) {
            return Err(place.error(
                Code::RecipeConflict,
                "truncate_embeddings is about a merge, and this recipe has none",
            ));
        }
        if let (Start::Base(..), Some((_, place))) = (&start, &view.seed) {
            return Err(place.error(
                Code::RecipeConflict,
                "seed is about a merge, and this recipe has none",
            ));
        }
        Ok(Document { root, start, view })
    }
}

fn base_alone(fields: &Fields, base: &Node) -> Result<Start> {
    let of_a_merge = KEYS.iter().filter(|key| !matches!(**key, "base" | "view"));
    for key in of_a_merge {
        if let Some(node) = fields.get(key) {
            return Err(node
                .place
                .error(
                    Code::RecipeConflict,
                    format!("{key} belongs to a merge, and base to a view without one"),
                )
                .with_hint("a recipe has either"));
        }
    }
    let reference = Reference::from_node(base, "base")?;
    Ok(Start::Base(reference, base.place.clone()))
}

/// Reads a merge from a recipe; has the models that were named so far.
struct MergeReader {
    /// What the method takes.
    parameters: &'static [Parameter],
    names: Vec<ModelName>,
    references: Vec<Reference>,
}

impl MergeReader {
    fn parse(fields: &Fields, place: &Place, view: &ViewSection) -> Result<Start> {
        let truncate = view.truncate_embeddings.as_ref();
        let method_name = fields.require("merge_method")?;
        let method = method(method_name.text("merge_method")?)
            .map_err(|e| e.at(method_name.place.clone()))?;
        let parameters = method.spec().parameters;
        let mut merge = MergeReader {
            parameters,
            names: Vec::new(),
            references: Vec::new(),
        };
        let modules = merge.body(fields, place)?;
        let base = match fields.get("base_model") {
            Some(node) => Some(merge.model(node, "base_model")?),
            None => None,
        };
        let vocabulary = match (merge.vocabulary(fields, base)?, truncate) {
            (vocabulary, None) => vocabulary,
            (Vocabulary::AsIs, Some(_)) => Vocabulary::Truncate,
            (_, Some(place)) => {
                return Err(place.error(
                    Code::RecipeConflict,
                    "truncate_embeddings and a tokenizer exclude each other",
                ));
            }
        };
        if let Some(template) = fields.get("chat_template") {
            return Err(template
                .place
                .error(
                    Code::RecipeUnsupported,
                    "chat_template changes the tokenizer, which a view shows as it is",
                )
                .with_hint(
                    "leave it out, and the template of the base model or first model is shown",
                ));
        }
        let definition = Definition {
            place: method_name.place.clone(),
            method,
            modules,
            base,
            parameters: settings(fields, parameters)?,
            dtype: dtype(fields, "dtype")?,
            out_dtype: dtype(fields, "out_dtype")?,
            vocabulary,
            seed: view.seed.as_ref().map_or(0, |(seed, _)| *seed),
            models: merge.names,
        };
        Ok(Start::Merge {
            definition,
            references: merge.references,
        })
    }

    /// The number of the model that `node` names.
    fn model(&mut self, node: &Node, what: &str) -> Result<ModelId> {
        let reference = Reference::of_merge(node, what)?;
        let known = self.references.iter().position(|known| *known == reference);
        Ok(known.unwrap_or_else(|| {
            self.names.push(ModelName {
                name: reference.to_string(),
                place: node.place.clone(),
            });
            self.references.push(reference);
            self.references.len() - 1
        }))
    }

    fn body(&mut self, fields: &Fields, place: &Place) -> Result<Modules> {
        if let Some(modules) = fields.get("modules") {
            if let Some(other) = fields.get("models").or(fields.get("slices")) {
                return Err(other.place.error(Code::RecipeConflict, ONE_BODY));
            }
            let entries = modules.map("modules")?;
            if entries.is_empty() {
                return Err(modules.place.error(Code::RecipeValue, "modules is empty"));
            }
            let named = entries.iter().map(|(key, node)| {
                let what = format!("module {}", key.text);
                let known = &["models", "slices", "parameters"];
                let fields = Fields::new(node, &what, known)?;
                Ok(Module {
                    name: key.text.clone(),
                    place: key.place.clone(),
                    inputs: self.inputs(&fields, &node.place)?,
                    parameters: settings(&fields, self.parameters)?,
                })
            });
            return Ok(Modules::Named(named.collect::<Result<_>>()?));
        }
        self.inputs(fields, place).map(Modules::All)
    }

    fn inputs(&mut self, fields: &Fields, place: &Place) -> Result<Inputs> {
        match (fields.get("models"), fields.get("slices")) {
            (Some(models), None) => {
                let inputs = nonempty(models, "models")?.iter().map(|node| {
                    let fields = Fields::new(node, "a model", &["model", "parameters"])?;
                    let model = fields.require("model")?;
                    Ok(ModelInput {
                        model: self.model(model, "model")?,
                        place: model.place.clone(),
                        parameters: settings(&fields, self.parameters)?,
                    })
                });
                Ok(Inputs::Models(inputs.collect::<Result<_>>()?))
            }
            (None, Some(slices)) => {
                let slices = nonempty(slices, "slices")?
                    .iter()
                    .map(|node| self.slice(node));
                Ok(Inputs::Slices(slices.collect::<Result<_>>()?))
            }
            (Some(_), Some(second)) => Err(second.place.error(Code::RecipeConflict, ONE_BODY)),
            (None, None) => Err(place.error(Code::RecipeConflict, ONE_BODY)),
        }
    }

    fn slice(&mut self, node: &Node) -> Result<Slice> {
        // residual_weight is a key that nothing takes account of, there as here.
        const KEYS: &[&str] = &["sources", "base_model", "parameters", "residual_weight"];
        let fields = Fields::new(node, "a slice", KEYS)?;
        let sources = nonempty(fields.require("sources")?, "sources")?;
        let inputs = sources.iter().map(|node| {
            let known = &["model", "layer_range", "parameters"];
            let fields = Fields::new(node, "a source", known)?;
            let model = fields.require("model")?;
            Ok(SliceInput {
                model: self.model(model, "model")?,
                place: node.place.clone(),
                layers: layer_range(fields.require("layer_range")?)?,
                parameters: settings(&fields, self.parameters)?,
            })
        });
        let inputs = inputs.collect::<Result<_>>()?;
        let base = match fields.get("base_model") {
            Some(node) => Some(self.model(node, "base_model")?),
            None => None,
        };
        Ok(Slice {
            place: node.place.clone(),
            inputs,
            base,
            parameters: settings(&fields, self.parameters)?,
        })
    }

    fn vocabulary(&mut self, fields: &Fields, base: Option<ModelId>) -> Result<Vocabulary> {
        let source = match (fields.get("tokenizer_source"), fields.get("tokenizer")) {
            (None, None) => return Ok(Vocabulary::AsIs),
            (Some(source), None) => source,
            (Some(_), Some(tokenizer)) => {
                return Err(tokenizer.place.error(
                    Code::RecipeConflict,
                    "tokenizer_source is given as well, and one is enough",
                ));
            }
            (None, Some(tokenizer)) => {
                const KEYS: &[&str] = &["source", "tokens", "pad_to_multiple_of"];
                let fields = Fields::new(tokenizer, "tokenizer", KEYS)?;
                for key in ["tokens", "pad_to_multiple_of"] {
                    if let Some(node) = fields.get(key) {
                        return Err(node.place.error(Code::RecipeUnsupported, format!(
                            "{key} makes a new tokenizer and new rows of the embedding; a view only shows the tokenizer of a model"
                        )));
                    }
                }
                match fields.get("source") {
                    Some(source) => source,
                    None => return Err(tokenizer.place.error(Code::RecipeUnsupported, UNION)),
                }
            }
        };
        match &source.value {
            Value::Map(_) => {}
            _ if source.text("tokenizer_source")? == "union" => {
                return Err(source.place.error(Code::RecipeUnsupported, UNION));
            }
            _ if source.text("tokenizer_source")? == "base" => {
                return Ok(Vocabulary::Tokenizer(base.unwrap_or(0)));
            }
            _ => {}
        }
        Ok(Vocabulary::Tokenizer(
            self.model(source, "tokenizer_source")?,
        ))
    }
}

const ONE_BODY: &str =
    "a merge has exactly one of models, slices and modules (and a view without a merge has base)";

const UNION: &str = "a tokenizer that is the union of several is a new one, and only tokenizers of a model can be shown; give base or a model as the source";

fn nonempty<'a>(node: &'a Node, what: &str) -> Result<&'a [Node]> {
    match node.list(what)? {
        [] => Err(node
            .place
            .error(Code::RecipeValue, format!("{what} is empty"))),
        nodes => Ok(nodes),
    }
}

fn layer_range(node: &Node) -> Result<(u64, u64)> {
    let numbers: Option<Vec<u64>> = node.list("layer_range")?.iter().map(Node::whole).collect();
    match numbers.as_deref() {
        Some(&[start, end]) if start < end => Ok((start, end)),
        _ => Err(node.place.error(Code::RecipeValue, "layer_range is not [first, end]: two whole numbers, the second one larger (it is the layer after the last)",
        )),
    }
}

fn dtype(fields: &Fields, key: &str) -> Result<Option<Dtype>> {
    let Some(node) = fields.get(key) else {
        return Ok(None);
    };
    match Precision::named(node.text(key)?) {
        Some(dtype) => Ok(Some(dtype.dtype())),
        None => Err(node.expected(key, "bfloat16, float16 or float32")),
    }
}
