//! From a recipe to a request: every model that it names is looked for.

use std::path::Path;

use crate::error::{Code, Error, Place, Result, Warning};
use crate::ops::Value;
use crate::recipe::assembly::Assembly;
use crate::recipe::document::{Document, Start};
use crate::recipe::models::{ModelPath, Places, Reference};
use crate::recipe::request::{MergeRequest, MergedModel, ModelOrigin, ViewRequest};
use crate::source::Location;

impl ViewRequest {
    /// The view that the recipe `path` describes: of several documents, the one without a name, or else the
    /// last. Models are looked for at `places`, and relative to the recipe's directory.
    ///
    /// # Errors
    /// If the recipe cannot be understood (with the line), or a model is not on this machine.
    pub fn from_recipe(path: &Path, places: &Places) -> Result<Self> {
        let documents = Document::read(path)?;
        let absolute = std::path::absolute(path).map_err(|e| Error::io("resolve", path, e))?;
        let mut reader = Reader {
            beside: absolute.parent().unwrap_or(Path::new("/")),
            places: places.clone(),
            is_used: vec![false; documents.len()],
            documents: &documents,
            open: Vec::new(),
            nested: 0,
        };
        reader.name_places();
        let shown = documents
            .iter()
            .position(|document| document.name.is_none());
        let mut request = reader.request(shown.unwrap_or(documents.len() - 1))?;
        request.warnings = reader.warnings(path);
        request.recipe = Some(absolute.clone());
        Ok(request)
    }
}

/// Makes requests of the documents of a recipe.
struct Reader<'a> {
    documents: &'a [Document],
    beside: &'a Path,
    places: Places,
    is_used: Vec<bool>,
    /// Documents whose requests are being made.
    open: Vec<usize>,
    /// How many views in views there are.
    nested: usize,
}

impl Reader<'_> {
    /// Takes account of the places that the documents name.
    fn name_places(&mut self) {
        for document in self.documents {
            let named = document.view.models.iter();
            let named =
                named.map(|(id, text)| (id.clone(), Location::from(text).relative_to(self.beside)));
            self.places.named.extend(named);
        }
    }

    /// What of the recipe, and of the places, has no effect.
    fn warnings(&self, path: &Path) -> Vec<Warning> {
        let asked = self.documents.iter().flat_map(|document| {
            let sources = document.view.sources.iter();
            let sources = sources.map(|source| &source.reference);
            document.start.references().iter().chain(sources)
        });
        let asked: Vec<&ModelPath> = asked
            .flat_map(|reference| std::iter::once(&reference.model).chain(&reference.lora))
            .collect();
        let unasked = self.places.unasked(&asked).into_iter().map(|id| {
            let problem = format!(
                "no model of the recipe is called {id}, so naming its directory has no effect"
            );
            Warning::new(Code::NoEffect, problem).in_file(path)
        });
        let unused = self.documents.iter().zip(&self.is_used);
        let unused = unused.filter_map(|(document, is_used)| {
            let (name, place) = document.name.as_ref().filter(|_| !is_used)?;
            let problem = format!("no shown document uses {name}");
            Some(place.warning(Code::NoEffect, problem))
        });
        unasked.chain(unused).collect()
    }

    /// The document that is called `model`.
    fn document(&self, model: &ModelPath) -> Option<usize> {
        self.documents.iter().position(|document| {
            let name = document.name.as_ref();
            name.is_some_and(|(name, _)| *name == model.path)
        })
    }

    fn find(&self, (reference, place): &(Reference, Place)) -> Result<Location> {
        if self.document(&reference.model).is_some() {
            let problem = format!(
                "{reference} is another document of this recipe, which only a merge can take as a model"
            );
            return Err(place.error(Code::RecipeConflict, problem));
        }
        match &reference.lora {
            None => self.places.find(&reference.model, self.beside, place),
            Some(_) => Err(place.error(
                Code::RecipeConflict,
                "a LoRA adapter can only be added to a model of the merge",
            )),
        }
    }

    /// The view that document number `number` describes.
    fn request(&mut self, number: usize) -> Result<ViewRequest> {
        let document = &self.documents[number];
        self.is_used[number] = true;
        self.open.push(number);
        let view = &document.view;
        let mut request = match &document.start {
            Start::Base(reference, place) => {
                ViewRequest::new(self.find(&(reference.clone(), place.clone()))?)
            }
            Start::Made {
                assembly,
                references,
            } => {
                let mut found = Vec::new();
                let mut models = Vec::new();
                for (reference, name) in references.iter().zip(assembly.models()) {
                    models.push(self.model(reference, &name.place, &mut found)?);
                }
                ViewRequest {
                    merge: Some(MergeRequest {
                        models: models.clone(),
                        assembly: Assembly::clone(assembly),
                        root: document.root.clone(),
                        found,
                    }),
                    ..ViewRequest::new(models[assembly.donor()].origin.base())
                }
            }
        };
        request.name = document.name.as_ref().map(|(name, _)| name.clone());
        request.operations = view.operations.clone();
        request.operations.relative_to(self.beside);
        for source in &view.sources {
            let place = source.place.clone();
            let value = Value::Source {
                location: self.find(&(source.reference.clone(), place.clone()))?,
                weight: source.weight,
                names: source.names.clone(),
            };
            let set = request.operations.set(source.key, value);
            set.map_err(|error| error.at(place))?;
        }
        request.shards = view.shards;
        request.shard_bytes = view.shard_bytes.unwrap_or(request.shard_bytes);
        self.open.pop();
        Ok(request)
    }

    /// A model of a merge: the view of another document, or a checkpoint, which is added to `found`.
    fn model(
        &mut self,
        reference: &Reference,
        place: &Place,
        found: &mut Vec<(String, Location)>,
    ) -> Result<MergedModel> {
        /// Views in views: a recipe has few documents, but several may be made of one.
        const MOST_VIEWS: usize = 256;
        let mut find = |path: &ModelPath| -> Result<Location> {
            let location = self.places.find(path, self.beside, place)?;
            found.push((path.to_string(), location.clone()));
            Ok(location)
        };
        let lora = reference.lora.as_ref().map(&mut find).transpose()?;
        let origin = match self.document(&reference.model) {
            None => ModelOrigin::At(find(&reference.model)?),
            Some(number) if self.open.contains(&number) => {
                let problem = format!("the document {} is made of itself", reference.model);
                return Err(place.error(Code::RecipeConflict, problem));
            }
            Some(_) if self.nested == MOST_VIEWS => {
                let problem =
                    format!("more than {MOST_VIEWS} views would be made of its documents");
                return Err(place.error(Code::OverLimit, problem));
            }
            Some(number) => {
                self.nested += 1;
                ModelOrigin::View(Box::new(self.request(number)?))
            }
        };
        Ok(MergedModel { origin, lora })
    }
}
