//! The documents of a recipe: each a merge as mergekit describes it, and under `view` what follows it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;

use crate::error::setting::BASE;
use crate::error::{Code, Error, Hint, Place, Result};
use crate::ops::merge::{
    ChatTemplate, Definition, Inputs, ModelId, ModelInput, Module, Modules, Parameter, Slice,
    SliceInput, TokenName, TokenRow, TokenRule, TokenizerChoice, TokenizerSource, Vocabulary,
    method,
};
use crate::recipe::assembly::Assembly;
use crate::recipe::fields::{dtype, nonempty};
use crate::recipe::models::{Names, Reference};
use crate::recipe::moe_document;
use crate::recipe::settings::settings;
use crate::recipe::view_section::ViewSection;
use crate::recipe::yaml::{self, Fields, Key, Node, Value};
use crate::source::missing;
use crate::source::with_room;

/// A document of a recipe, parsed. No model was looked for yet.
#[derive(Debug)]
pub(super) struct Document {
    /// All of it, as it stands.
    pub root: Node,
    /// What other documents call it.
    pub name: Option<(String, Place)>,
    pub start: Start,
    pub view: ViewSection,
}

/// What a view starts from.
#[derive(Debug)]
pub(super) enum Start {
    Base(Reference, Place),
    Made {
        assembly: Box<Assembly>,
        /// As [`Assembly::models`].
        references: Vec<Reference>,
    },
}

impl Start {
    /// The models that it names.
    pub(super) fn references(&self) -> &[Reference] {
        match self {
            Start::Base(reference, _) => std::slice::from_ref(reference),
            Start::Made { references, .. } => references,
        }
    }
}

const KEYS: &[&str] = &[
    "name",
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
    /// Reads the recipe `path`: its documents, no two of one name.
    pub(super) fn read(path: &Path) -> Result<Vec<Self>> {
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
    pub(super) fn parse(text: &str, path: &Path) -> Result<Vec<Self>> {
        let roots = yaml::parse(text, &Arc::from(path))?;
        let mut documents: Vec<Self> = Vec::new();
        for root in roots {
            let document = Self::of(root)?;
            let mut others = documents.iter().map(|other| &other.name);
            match &document.name {
                Some((name, place)) => {
                    if others.flatten().any(|(other, _)| other == name) {
                        let problem = format!("two documents are called {name}");
                        return Err(place.error(Code::RecipeKey, problem));
                    }
                }
                None => {
                    if others.any(Option::is_none) {
                        let problem = "a second document without a name begins here; one of several has none, and is what is shown";
                        return Err(document.root.place.error(Code::RecipeConflict, problem));
                    }
                }
            }
            documents.push(document);
        }
        Ok(documents)
    }

    fn of(root: Node) -> Result<Self> {
        let is_moe = moe_document::is_one(&root);
        let known = if is_moe { moe_document::KEYS } else { KEYS };
        let fields = Fields::new(&root, "a recipe", known)?;
        let name = match fields.get("name") {
            Some(node) => Some((node.text("name")?.to_owned(), node.place.clone())),
            None => None,
        };
        let view = match fields.get("view") {
            Some(view) => ViewSection::parse(view)?,
            None => ViewSection::default(),
        };
        let start = if is_moe {
            let seed = view.seed.as_ref().map_or(0, |(seed, _)| *seed);
            let (definition, references) = moe_document::parse(&fields, &root.place, seed)?;
            Start::Made {
                assembly: Box::new(Assembly::Moe(definition)),
                references,
            }
        } else {
            match fields.get("base") {
                Some(base) => base_alone(&fields, base)?,
                None => MergeReader::parse(&fields, &root.place, &view)?,
            }
        };
        if let (Start::Base(..), Some(place)) = (&start, &view.truncate_embeddings) {
            return Err(place.error(
                Code::RecipeConflict,
                "truncate_embeddings is about a merge, and this recipe has none",
            ));
        }
        if let (true, Some(place)) = (is_moe, &view.truncate_embeddings) {
            return Err(place.error(
                Code::RecipeConflict,
                "truncate_embeddings is about a merge, and a mixture of experts has the embedding of its base",
            ));
        }
        if let (Start::Base(..), Some((_, place))) = (&start, &view.seed) {
            return Err(place.error(
                Code::RecipeConflict,
                "seed is about a merge, and this recipe has none",
            ));
        }
        Ok(Document {
            root,
            name,
            start,
            view,
        })
    }
}

fn base_alone(fields: &Fields, base: &Node) -> Result<Start> {
    let of_a_merge = KEYS.iter();
    let of_a_merge = of_a_merge.filter(|key| !matches!(**key, "base" | "view" | "name"));
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

/// Reads a merge from a recipe.
struct MergeReader {
    /// What the method takes.
    parameters: &'static [Parameter],
    names: Names,
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
            names: Names::default(),
        };
        let modules = merge.body(fields, place)?;
        let base = match fields.get("base_model") {
            Some(node) => Some(merge.model(node, "base_model")?),
            None => None,
        };
        let vocabulary = match (merge.vocabulary(fields)?, truncate) {
            (vocabulary, None) => vocabulary,
            (Vocabulary::AsIs, Some(_)) => Vocabulary::Truncate,
            (_, Some(place)) => {
                return Err(place.error(
                    Code::RecipeConflict,
                    "truncate_embeddings and a tokenizer exclude each other",
                ));
            }
        };
        let chat_template = match fields.get("chat_template") {
            Some(node) => {
                let template = ChatTemplate::parse(node.text("chat_template")?);
                let refused = |problem| node.place.error(Code::RecipeValue, problem);
                Some(template.map_err(refused)?)
            }
            None => None,
        };
        let definition = Definition {
            place: method_name.place.clone(),
            method,
            modules,
            base,
            parameters: settings(fields, parameters)?,
            dtype: dtype(fields, "dtype")?,
            out_dtype: dtype(fields, "out_dtype")?,
            vocabulary,
            chat_template,
            seed: view.seed.as_ref().map_or(0, |(seed, _)| *seed),
            models: merge.names.models,
        };
        Ok(Start::Made {
            assembly: Box::new(Assembly::Merge(definition)),
            references: merge.names.references,
        })
    }

    fn model(&mut self, node: &Node, what: &str) -> Result<ModelId> {
        self.names.model(node, what)
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

    fn vocabulary(&mut self, fields: &Fields) -> Result<Vocabulary> {
        let (place, source, tokenizer) =
            match (fields.get("tokenizer_source"), fields.get("tokenizer")) {
                (None, None) => return Ok(Vocabulary::AsIs),
                (Some(source), None) => (&source.place, Some(source), None),
                (Some(_), Some(tokenizer)) => {
                    return Err(tokenizer.place.error(
                        Code::RecipeConflict,
                        "tokenizer_source is given as well, and one is enough",
                    ));
                }
                (None, Some(node)) => {
                    const KEYS: &[&str] = &["source", "tokens", "pad_to_multiple_of"];
                    let fields = Fields::new(node, "tokenizer", KEYS)?;
                    (&node.place, fields.get("source"), Some(fields))
                }
            };
        let source = match source {
            None => TokenizerSource::Union,
            Some(node) if matches!(node.value, Value::Map(_)) => {
                TokenizerSource::Model(self.model(node, "tokenizer_source")?)
            }
            Some(node) => match node.text("tokenizer_source")? {
                "union" => TokenizerSource::Union,
                "base" => TokenizerSource::Base,
                _ => TokenizerSource::Model(self.model(node, "tokenizer_source")?),
            },
        };
        let mut choice = TokenizerChoice {
            source,
            place: place.clone(),
            tokens: Vec::new(),
            pad_to_multiple_of: None,
        };
        if let Some(fields) = tokenizer {
            if let Some(node) = fields.get("pad_to_multiple_of") {
                let multiple = node.whole().filter(|multiple| *multiple > 0);
                let bad = || node.expected("pad_to_multiple_of", "a whole number above 0");
                choice.pad_to_multiple_of = Some(multiple.ok_or_else(bad)?);
            }
            if let Some(tokens) = fields.get("tokens") {
                for (key, node) in tokens.map("tokens")? {
                    choice.tokens.push(self.token_rule(key, node)?);
                }
            }
        }
        Ok(Vocabulary::Tokenizer(choice))
    }

    fn token_rule(&mut self, key: &Key, node: &Node) -> Result<TokenRule> {
        let what = format!("token {:?}", key.text);
        let fields = Fields::new(node, &what, &["source", "force"])?;
        let source = match fields.get("source") {
            Some(node) => Some(self.token_row(node)?),
            None => None,
        };
        let force = match fields.get("force") {
            Some(node) => node.bool("force")?,
            None => false,
        };
        if force && source.is_none() {
            return Err(node
                .place
                .error(Code::RecipeKey, format!("{what} needs source, to force it")));
        }
        Ok(TokenRule {
            token: key.text.clone(),
            place: key.place.clone(),
            source,
            force,
        })
    }

    fn token_row(&mut self, node: &Node) -> Result<TokenRow> {
        let kind = match &node.value {
            Value::Map(entries) => entries.iter().find(|(key, _)| key.text == "kind"),
            _ => None,
        };
        let Some((_, kind)) = kind else {
            return Ok(TokenRow::Model(self.model(node, "the source of a token")?));
        };
        match kind.text("kind")? {
            "zero" => {
                Fields::new(node, "the source of a token", &["kind"])?;
                Ok(TokenRow::Zero)
            }
            "model_token" => {
                const KEYS: &[&str] = &["kind", "model", "token", "token_id"];
                let fields = Fields::new(node, "the source of a token", KEYS)?;
                let model = self.model(fields.require("model")?, "model")?;
                let token = match (fields.get("token"), fields.get("token_id")) {
                    (Some(token), None) => TokenName::Text(token.text("token")?.to_owned()),
                    (None, Some(id)) => {
                        let bad = || id.expected("token_id", "a whole number");
                        TokenName::Id(id.whole().ok_or_else(bad)?)
                    }
                    _ => {
                        return Err(node.place.error(
                            Code::RecipeConflict,
                            "the row of another token is given by either token or token_id",
                        ));
                    }
                };
                Ok(TokenRow::Token(model, token))
            }
            _ => Err(kind.expected("kind", "zero or model_token")),
        }
    }
}

const ONE_BODY: &str =
    "a merge has exactly one of models, slices and modules (and a view without a merge has base)";

fn layer_range(node: &Node) -> Result<(u64, u64)> {
    let numbers: Option<Vec<u64>> = node.list("layer_range")?.iter().map(Node::whole).collect();
    match numbers.as_deref() {
        Some(&[start, end]) if start < end => Ok((start, end)),
        _ => Err(node.place.error(Code::RecipeValue, "layer_range is not [first, end]: two whole numbers, the second one larger (it is the layer after the last)",
        )),
    }
}
