//! Checkpoints of compressed-tensors whose groups of modules are quantized in several ways (`mixed-precision`): each
//! weight is read by the scheme of its group.
//!
//! A weight is of the first group whose `targets` name its module, by path or expression, or else of the first with
//! a class such as `Linear` that has tensors as this weight has.

use indexmap::IndexMap;
use serde_json::{Value, json};

use crate::catalog::Tensor;
use crate::error::setting::{DROP, DTYPE};
use crate::error::{Code, Error, Hint, Result};
use crate::kernels::lanes::Precision;
use crate::quant::declared::{GROUPS_KEY, METHOD_KEY, TARGETS_KEY};
use crate::quant::only_read::OnlyRead;
use crate::quant::scheme::{Role, Scheme};
use crate::quant::skip_entries::{Entry, is_class, module_of};
use crate::tensor::Name;

const FORMAT: &str = "format";
const PACKED: &str = "_packed";
/// Companions of packed codes of any scheme, by what their names add to the weight's.
const OF_PACKED: [&str; 5] = ["_scale", "_shape", "_zero_point", "_g_idx", "_global_scale"];

/// The scheme of a declaration that has one group; or what is not known of it, for messages.
pub(super) type SchemeOfGroup = fn(&Value) -> std::result::Result<Box<dyn Scheme>, String>;

/// Weights of several groups.
#[derive(Debug)]
pub(super) struct Mixed {
    scheme_of_group: SchemeOfGroup,
    groups: Vec<Group>,
}

/// A group of config.json.
#[derive(Debug)]
struct Group {
    name: String,
    targets: Vec<String>,
    /// What is not known of it, if it cannot be read.
    scheme: std::result::Result<Box<dyn Scheme>, String>,
}

impl Group {
    fn has_class(&self) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| is_class(target))
    }

    fn names(&self, module: &str) -> bool {
        let mut targets = self.targets.iter().filter(|target| !is_class(target));
        targets.any(|target| Entry::new(target).names(module))
    }

    /// Whether the tensor called `codes` is such codes of this group as `weight` has.
    fn has(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        codes: &str,
        tensor: &Tensor,
        weight: &str,
    ) -> bool {
        let scheme = self.scheme.as_ref();
        scheme.is_ok_and(|scheme| {
            let mut companions = scheme.companions(weight).into_iter();
            scheme.role(tensors, codes, tensor) == Role::Codes(weight.to_owned())
                && companions.all(|name| tensors.contains_key(&*name))
                && scheme.has_dtypes_of(tensors, weight)
        })
    }
}

impl Mixed {
    /// Of no groups yet.
    pub(super) const fn new(scheme_of_group: SchemeOfGroup) -> Self {
        Mixed {
            scheme_of_group,
            groups: Vec::new(),
        }
    }

    fn parsed(&self, declaration: &Value) -> Option<Self> {
        let groups = declaration.get(GROUPS_KEY)?.as_object()?;
        let groups = groups
            .iter()
            .filter(|(_, group)| !group["weights"].is_null());
        // Each is declared alone below.
        if groups.clone().count() < 2 {
            return None;
        }
        let groups: Vec<Group> = groups
            .map(|(name, group)| {
                let mut alone = declaration.clone();
                alone[GROUPS_KEY] = json!({ name: group });
                if let Some(format) = group.get(FORMAT).filter(|format| !format.is_null()) {
                    alone[FORMAT] = format.clone();
                }
                let targets = group[TARGETS_KEY].as_array();
                let targets = targets.into_iter().flatten().filter_map(Value::as_str);
                Group {
                    name: name.clone(),
                    targets: targets.map(str::to_owned).collect(),
                    scheme: (self.scheme_of_group)(&alone),
                }
            })
            .collect();
        groups
            .iter()
            .any(|group| group.scheme.is_ok())
            .then_some(Mixed {
                groups,
                ..Self::new(self.scheme_of_group)
            })
    }

    /// The schemes that can be read.
    fn schemes(&self) -> impl Iterator<Item = &dyn Scheme> {
        let schemes = self
            .groups
            .iter()
            .filter_map(|group| group.scheme.as_ref().ok());
        schemes.map(|scheme| &**scheme)
    }
}

impl OnlyRead for Mixed {
    fn name(&self) -> &'static str {
        "compressed-tensors of several kinds"
    }

    fn readable(&self) -> &'static str {
        "\"compressed-tensors\" of several such groups"
    }

    fn parse(&self, declaration: &Value) -> Option<std::result::Result<Box<dyn Scheme>, String>> {
        if declaration[METHOD_KEY] != "compressed-tensors" {
            return None;
        }
        self.parsed(declaration)
            .map(|mixed| Ok(Box::new(mixed) as Box<dyn Scheme>))
    }

    fn geometry(&self) -> String {
        let groups = self.groups.iter().map(|group| match &group.scheme {
            Ok(scheme) => format!("{}: {}", group.name, scheme.geometry()),
            Err(unknown) => format!("{}: {unknown}", group.name),
        });
        groups.collect::<Vec<_>>().join("; ")
    }

    fn role(&self, tensors: &IndexMap<Name, Tensor>, name: &str, tensor: &Tensor) -> Role {
        let roles = || {
            self.schemes()
                .map(|scheme| scheme.role(tensors, name, tensor))
        };
        if let Some(codes) = roles().find(|role| matches!(role, Role::Codes(_))) {
            return codes;
        }
        if let Some(companion) = roles().find(|role| matches!(role, Role::Companion(_))) {
            return companion;
        }
        // Of a group that cannot be read.
        if let Some(weight) = name.strip_suffix(PACKED) {
            return Role::Codes(weight.to_owned());
        }
        let mut suffixes = OF_PACKED.iter();
        let weight = suffixes.find_map(|suffix| name.strip_suffix(suffix));
        match weight.filter(|weight| tensors.contains_key(&*[weight, PACKED].concat())) {
            Some(weight) => Role::Companion(weight.to_owned()),
            None => Role::Plain,
        }
    }

    fn check_companion(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        companion: &Tensor,
    ) -> Result<()> {
        let mut checks = self
            .schemes()
            .map(|scheme| scheme.check_companion(tensors, name, companion));
        let first = checks.next().unwrap_or(Ok(()));
        if first.is_ok() || checks.any(|check| check.is_ok()) {
            return Ok(());
        }
        match OnlyRead::role(self, tensors, name, companion) {
            Role::Companion(weight) if tensors.contains_key(&*[&weight, PACKED].concat()) => Ok(()),
            _ => first,
        }
    }

    fn decoded(
        &self,
        tensors: &IndexMap<Name, Tensor>,
        name: &str,
        codes: &Tensor,
        to: Precision,
    ) -> Result<Tensor> {
        let module = module_of(name);
        let code_names = [[name, PACKED].concat(), name.to_owned()];
        let code_name = code_names
            .iter()
            .find(|name| tensors.contains_key(&***name));
        let code_name = code_name.map_or(name, |name| name);
        let has = |group: &&Group| group.has(tensors, code_name, codes, name);
        let groups = || self.groups.iter();
        let by_name = groups().filter(|group| group.names(module));
        let by_name = by_name.collect::<Vec<_>>();
        let found = match by_name.first() {
            Some(first) => by_name.iter().copied().find(has).or(Some(*first)),
            None => groups()
                .filter(|group| group.has_class())
                .find(has)
                .or_else(|| groups().find(has)),
        };
        let refuse = |problem: String| {
            let error = Error::of_tensor(Code::OtherQuantization, codes.origin(), name, problem);
            let drop = Hint::give(DROP).to("leave this tensor out");
            Err(error.with_hint(Hint::leave_out(DTYPE).or(drop)))
        };
        match found.map(|group| (group, &group.scheme)) {
            Some((_, Ok(scheme))) => scheme.decoded(tensors, name, codes, to),
            Some((group, Err(unknown))) => refuse(format!(
                "its {GROUPS_KEY}.{} declares {unknown}, which cannot be dequantized",
                group.name
            )),
            None => refuse(format!(
                "no group of {GROUPS_KEY} that can be dequantized has such tensors"
            )),
        }
    }
}
