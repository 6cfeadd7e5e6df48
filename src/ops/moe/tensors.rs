//! The tensors of a mixture, made of those of the models.

use indexmap::IndexMap;

use crate::catalog::Tensor;
use crate::error::{Code, Error, Result};
use crate::kernels::lanes::Precision;
use crate::ops::convert;
use crate::ops::merge::{PointwiseKernel, Scale, Source, in_layer, layer, tokenizer_file};
use crate::ops::moe::architecture::Architecture;
use crate::ops::moe::definition::{Expert, Gates, MoeDefinition, Prompts};
use crate::ops::moe::gates::{self, Distribution, Tokens};
use crate::ops::tokenizer::Tokenizer;
use crate::tensor::{Name, shape_text};

/// The prefix of the layers of all architectures.
pub(super) const LAYERS: &str = "model.layers";
pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
/// Tensors outside of the layers.
const LOOSE: [&str; 3] = [EMBEDDING, "model.norm.weight", "lm_head.weight"];
/// Projections of an MLP, in the order of [`Architecture::projections`].
const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// What the tensors of a mixture are made from.
pub(super) struct Builder<'a> {
    pub(super) definition: &'a MoeDefinition,
    pub(super) sources: &'a [Source],
    pub(super) architecture: &'static Architecture,
    pub(super) precision: Precision,
    pub(super) layers: u64,
}

impl Builder<'_> {
    pub(super) fn tensors(&self) -> Result<IndexMap<Name, Tensor>> {
        /// The most tensors of a mixture.
        const MOST_TENSORS: u64 = 1 << 21;
        let base = &self.sources[self.definition.base].catalog.tensors;
        let experts = self.definition.experts.len() as u64;
        let count = (base.len() as u64).saturating_add(self.layers.saturating_mul(3 * experts));
        if count > MOST_TENSORS {
            let problem = format!(
                "it would have {count} tensors or more; at most {MOST_TENSORS} are possible"
            );
            return Err(self.definition.place.error(Code::OverLimit, problem));
        }
        let mut tensors = IndexMap::new();
        for (name, tensor) in base {
            let rest = match layer(name) {
                Some((LAYERS, _, rest)) => Some(rest),
                Some(_) => None,
                None if LOOSE.contains(&&**name) => {
                    tensors.insert(name.clone(), self.converted(name, tensor)?);
                    continue;
                }
                None => None,
            };
            // The experts have these, and loaders compute those.
            let is_left_out =
                |rest: &str| is_projection(rest) || rest.ends_with("rotary_emb.inv_freq");
            match rest {
                Some(rest) if self.architecture.is_of_base(rest) => {
                    tensors.insert(name.clone(), self.converted(name, tensor)?);
                }
                Some(rest) if is_left_out(rest) => {}
                _ => {
                    let problem = format!(
                        "{} has no place for it, and the model would be another without it",
                        self.architecture.name
                    );
                    return Err(Error::of_tensor(
                        Code::MergeUnlike,
                        tensor.origin(),
                        name,
                        problem,
                    ));
                }
            }
        }
        for index in 0..self.layers {
            self.biases(index, &mut tensors)?;
            self.experts(index, &mut tensors)?;
        }
        self.routers(&mut tensors)?;
        self.check_expert_names()?;
        Ok(tensors)
    }

    fn block(&self, index: u64, rest: &str) -> String {
        in_layer(
            LAYERS,
            index,
            &format!("{}.{rest}", self.architecture.block),
        )
    }

    fn converted(&self, name: &str, tensor: &Tensor) -> Result<Tensor> {
        let mut converted = convert(name, tensor, self.precision)?;
        converted.home = None;
        Ok(converted)
    }

    /// Biases of zeros, where the base has none.
    fn biases(&self, index: u64, tensors: &mut IndexMap<Name, Tensor>) -> Result<()> {
        for bias in self.architecture.biases {
            let name = in_layer(LAYERS, index, bias);
            if tensors.contains_key(&*name) {
                continue;
            }
            let weight = in_layer(LAYERS, index, &bias.replace(".bias", ".weight"));
            let weight = self.base(&weight)?;
            let zeros = gates::made(
                &name,
                weight,
                [weight.shape.first().copied().unwrap_or(0), 1],
                0,
                Distribution::Zeros,
                self.precision,
            );
            let shape = vec![zeros.shape[0]];
            let zeros = Tensor {
                shape: shape.into(),
                ..zeros
            };
            tensors.insert(name.into(), zeros);
        }
        Ok(())
    }

    fn base(&self, name: &str) -> Result<&Tensor> {
        self.of(self.definition.base, name)
    }

    /// The tensor `name` of a model.
    fn of(&self, model: usize, name: &str) -> Result<&Tensor> {
        let source = &self.sources[model];
        source.catalog.tensors.get(name).ok_or_else(|| {
            let place = &self.definition.models[model].place;
            let problem = format!("{} does not have it", source.name);
            place.error(Code::MergeLayers, problem).about_tensor(name)
        })
    }

    fn experts(&self, index: u64, tensors: &mut IndexMap<Name, Tensor>) -> Result<()> {
        let numbered = self.definition.experts.iter().enumerate();
        let numbered = numbered.map(|(number, expert)| {
            let module = format!("experts.{number}");
            (module, expert, self.architecture.projections)
        });
        let shared = self.definition.shared.iter().map(|expert| {
            let module = self.architecture.shared_expert.to_owned();
            (module, expert, PROJECTIONS)
        });
        for (module, expert, projections) in numbered.chain(shared) {
            for (from, to) in PROJECTIONS.iter().zip(projections) {
                let source = in_layer(LAYERS, index, &format!("mlp.{from}.weight"));
                let (tensor, like) = (self.of(expert.model, &source)?, self.base(&source)?);
                if tensor.shape != like.shape {
                    let problem = format!(
                        "its shape is {} in {} and {} in the base; experts must be as large as the base's MLP",
                        shape_text(&tensor.shape),
                        self.sources[expert.model].name,
                        shape_text(&like.shape)
                    );
                    return Err(Error::of_tensor(
                        Code::MergeUnlike,
                        tensor.origin(),
                        &source,
                        problem,
                    ));
                }
                let name = self.block(index, &format!("{module}.{to}.weight"));
                let tensor = match expert.residual_scale {
                    Some(scale) if *from == "down_proj" => self.scaled(&name, tensor, scale)?,
                    _ => self.converted(&name, tensor)?,
                };
                tensors.insert(name.into(), tensor);
            }
        }
        Ok(())
    }

    /// `tensor` times `scale` in its own dtype, in that of the result.
    fn scaled(&self, name: &str, tensor: &Tensor, scale: f64) -> Result<Tensor> {
        let Some(own) = Precision::from_dtype(tensor.dtype) else {
            let problem = format!("it is {}, which cannot be scaled", tensor.dtype);
            let origin = tensor.origin();
            return Err(Error::of_tensor(
                Code::UnsupportedTensor,
                origin,
                name,
                problem,
            ));
        };
        let factor = Some(scale as f32);
        let inputs = vec![tensor.clone()];
        let dtype = self.precision.dtype();
        let mut scaled =
            PointwiseKernel::tensor(&name.into(), Scale { factor }, inputs, own, dtype);
        scaled.home = None;
        Ok(scaled)
    }

    /// Experts may have no tensors in their MLPs but the three.
    fn check_expert_names(&self) -> Result<()> {
        for expert in self
            .definition
            .experts
            .iter()
            .chain(&self.definition.shared)
        {
            for (name, tensor) in &self.sources[expert.model].catalog.tensors {
                let of_mlp = layer(name).filter(|(_, _, rest)| rest.starts_with("mlp."));
                if of_mlp.is_some_and(|(_, _, rest)| !is_projection(rest)) {
                    let problem = format!(
                        "an expert of {} has no place for it",
                        self.architecture.name
                    );
                    let origin = tensor.origin();
                    return Err(Error::of_tensor(Code::MergeUnlike, origin, name, problem));
                }
            }
        }
        Ok(())
    }

    fn routers(&self, tensors: &mut IndexMap<Name, Tensor>) -> Result<()> {
        let embedding = self.base(EMBEDDING)?;
        let &[_, width] = &embedding.shape[..] else {
            let problem = "an embedding has rows and columns";
            let origin = embedding.origin();
            return Err(Error::of_tensor(
                Code::MergeUnlike,
                origin,
                EMBEDDING,
                problem,
            ));
        };
        let shared = self.definition.shared.as_ref();
        let shared = shared.zip(self.architecture.shared_gate);
        let experts = self.definition.experts.len() as u64;
        let mut wanted = vec![("gate", experts)];
        wanted.extend(shared.map(|(_, gate)| (gate, 1)));
        let embedded = match self.definition.gates {
            Gates::CheapEmbed => Some(self.embedded(embedding)?),
            _ => None,
        };
        for index in 0..self.layers {
            for (of, (gate, rows)) in wanted.iter().enumerate() {
                let name = self.block(index, &format!("{gate}.weight"));
                let tensor = match (self.definition.gates, &embedded) {
                    (Gates::CheapEmbed, Some(embedded)) => embedded[of].clone(),
                    (Gates::File(file), _) => self.stored_router(file, index, gate, &name)?,
                    (gates, _) => {
                        let distribution = match gates {
                            Gates::UniformRandom => {
                                Distribution::Uniform((1.0 / width as f64).sqrt())
                            }
                            _ => Distribution::Normal,
                        };
                        let (seed, shape) = (self.definition.seed, [*rows, width]);
                        gates::made(&name, embedding, shape, seed, distribution, self.precision)
                    }
                };
                if tensor.shape[..] != [*rows, width] {
                    let problem = format!(
                        "a router of {rows} experts for {width} columns would be {}, and this is {}",
                        shape_text(&[*rows, width]),
                        shape_text(&tensor.shape)
                    );
                    return Err(Error::of_tensor(
                        Code::MergeUnlike,
                        tensor.origin(),
                        &name,
                        problem,
                    ));
                }
                tensors.insert(name.into(), tensor);
            }
        }
        Ok(())
    }

    /// A router of the file of gates, by its name in this or another architecture.
    fn stored_router(&self, file: usize, index: u64, gate: &str, name: &str) -> Result<Tensor> {
        let source = &self.sources[file];
        let blocks = ["mlp", "block_sparse_moe"];
        let mut names = blocks
            .iter()
            .map(|block| in_layer(LAYERS, index, &format!("{block}.{gate}.weight")));
        let found = names.find_map(|name| source.catalog.tensors.get(&*name));
        let found = found.ok_or_else(|| {
            let place = &self.definition.models[file].place;
            let problem = format!(
                "{} has no router {LAYERS}.{index}.mlp.{gate}.weight",
                source.name
            );
            place.error(Code::MergeLayers, problem)
        })?;
        self.converted(name, found)
    }

    /// The routers that prompts make: of the experts, and of the shared expert if it has one.
    fn embedded(&self, embedding: &Tensor) -> Result<Vec<Tensor>> {
        let source = &self.sources[self.definition.base];
        let (text, path) = tokenizer_file(source, "tokenizer.json")?;
        let Some(text) = text else {
            let problem = "cheap_embed cuts prompts into tokens by it, and there is no such file";
            return Err(Error::of_file(Code::BadTokenizer, path, problem));
        };
        let tokenizer = Tokenizer::parse(&text, &path)?;
        let start = beginning(source)?;
        let tokens = |prompts: &[String]| -> Result<Tokens> {
            let mut counts = Tokens::new();
            for prompt in prompts {
                for token in tokenizer.ids(&format!("{start}{prompt}"))? {
                    *counts.entry(u64::from(token)).or_default() += 1;
                }
            }
            Ok(counts)
        };
        let of = |experts: &[&Expert]| -> Result<Tensor> {
            let prompts = experts.iter().map(|expert| {
                let Prompts { positive, negative } = &expert.prompts;
                Ok((tokens(positive)?, tokens(negative)?))
            });
            let prompts = prompts.collect::<Result<Vec<_>>>()?;
            gates::cheap_embed("gate.weight", embedding, &prompts, self.precision)
        };
        let experts: Vec<&Expert> = self.definition.experts.iter().collect();
        let mut routers = vec![of(&experts)?];
        if let (Some(shared), Some(_)) = (&self.definition.shared, self.architecture.shared_gate) {
            routers.push(of(&[shared])?);
        }
        Ok(routers)
    }
}

/// The token that texts begin with, as tokenizer_config.json says; none if it names none.
fn beginning(source: &Source) -> Result<String> {
    let (Some(text), _) = tokenizer_file(source, "tokenizer_config.json")? else {
        return Ok(String::new());
    };
    let config: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let token = &config["bos_token"];
    let token = token.as_str().or_else(|| token["content"].as_str());
    Ok(token.unwrap_or_default().to_owned())
}

fn is_projection(rest: &str) -> bool {
    PROJECTIONS.iter().any(|projection| {
        rest.strip_prefix("mlp.")
            .and_then(|rest| rest.strip_suffix(".weight"))
            == Some(*projection)
    })
}
