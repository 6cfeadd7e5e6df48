//! What compressed-tensors checkpoints are made of: names, dtypes, and how numbers share scales.

use serde_json::Value;

use crate::catalog::Tensor;
use crate::tensor::Dtype;

/// `quant_method` of config.json.
pub(super) const METHOD: &str = "compressed-tensors";
/// What the names of weights end with.
pub(super) const WEIGHT: &str = ".weight";
pub(super) const PACKED: &str = "_packed";
pub(super) const SCALE: &str = "_scale";
pub(super) const SHAPE: &str = "_shape";
pub(super) const ZERO_POINT: &str = "_zero_point";
pub(super) const INDEX: &str = "_g_idx";

/// Codes of four bits in an element of I32.
pub(super) const NIBBLES: u64 = 8;

/// How the tensors of a weight `X.weight` of shape `[rows, cols]` are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `X.weight`, codes of 8 bits, and `X.weight_scale`.
    Dense,
    /// `X.weight_packed` (I32 `[rows, ceil(cols / 8)]`), `X.weight_scale` and `X.weight_shape`.
    Packed,
    /// The same with `X.weight_zero_point` (I32 `[ceil(rows / 8), groups]`).
    PackedAsymmetric,
}

impl Form {
    /// What the names of companions end with, after that of the weight.
    pub(super) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Form::Dense => &[SCALE],
            Form::Packed => &[PACKED, SCALE, SHAPE],
            Form::PackedAsymmetric => &[PACKED, SCALE, SHAPE, ZERO_POINT],
        }
    }

    /// What the names of companions that a weight may have end with.
    fn optional_suffixes(self) -> &'static [&'static str] {
        match self {
            Form::Dense => &[],
            Form::Packed | Form::PackedAsymmetric => &[INDEX],
        }
    }

    /// The weight that the companion `name` belongs to.
    pub(super) fn weight_of(self, name: &str) -> Option<&str> {
        let mut suffixes = self.suffixes().iter().chain(self.optional_suffixes());
        let weight = suffixes.find_map(|suffix| name.strip_suffix(suffix));
        weight.filter(|weight| weight.ends_with(WEIGHT))
    }
}

/// Which numbers share a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    /// All of a weight.
    Tensor,
    /// A row.
    Channel,
    /// So many columns of a row.
    Group(u64),
    /// Rows × columns.
    Block([u64; 2]),
}

/// Which numbers codes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Float8,
    Int8,
    Int4,
}

/// The `weights` of a group of config.json.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weights {
    pub kind: Kind,
    pub strategy: Strategy,
    pub symmetric: bool,
    /// Whether columns of any places share a scale, as `X.weight_g_idx` says.
    pub reordered: bool,
}

impl Weights {
    /// Those that `arguments` says, or what of it is not known, for messages.
    pub(super) fn parse(arguments: &Value) -> Result<Self, String> {
        let unknown = |key: &str| format!("{key} {}", arguments.get(key).unwrap_or(&Value::Null));
        let bits = arguments.get("num_bits").and_then(Value::as_u64);
        let kind = match (arguments["type"].as_str(), bits) {
            (Some("float"), Some(8)) => Kind::Float8,
            (Some("int"), Some(8)) => Kind::Int8,
            (Some("int"), Some(4)) => Kind::Int4,
            (Some(_), _) => return Err(unknown("num_bits")),
            (None, _) => return Err(unknown("type")),
        };
        let is_set = |key: &str| arguments.get(key).is_some_and(|value| !value.is_null());
        // Scales of E8M0.
        if is_set("scale_dtype") {
            return Err(unknown("scale_dtype"));
        }
        let order = &arguments["actorder"];
        let reordered = match (
            order,
            order.as_str().map(str::to_ascii_lowercase).as_deref(),
        ) {
            // The columns of a weight were quantized in another order, and are stored in their own.
            (Value::Null | Value::Bool(false), _) | (_, Some("weight" | "static")) => false,
            (Value::Bool(true), _) | (_, Some("group" | "dynamic")) if kind == Kind::Int4 => true,
            _ => return Err(unknown("actorder")),
        };
        let strategy = match arguments["strategy"].as_str() {
            Some("tensor") => Strategy::Tensor,
            Some("channel") => Strategy::Channel,
            Some("group") => match arguments["group_size"].as_u64() {
                Some(size) if size > 0 => Strategy::Group(size),
                _ => return Err(unknown("group_size")),
            },
            Some("block") => {
                let structure = arguments["block_structure"].clone();
                match serde_json::from_value::<[u64; 2]>(structure) {
                    Ok([rows, columns]) if rows > 0 && columns > 0 => {
                        Strategy::Block([rows, columns])
                    }
                    _ => return Err(unknown("block_structure")),
                }
            }
            _ => return Err(unknown("strategy")),
        };
        if reordered && !matches!(strategy, Strategy::Group(_)) {
            return Err(unknown("actorder"));
        }
        Ok(Weights {
            kind,
            strategy,
            symmetric: arguments["symmetric"].as_bool() != Some(false),
            reordered,
        })
    }

    pub(super) fn form(&self) -> Option<Form> {
        match (self.kind, self.symmetric) {
            (Kind::Float8 | Kind::Int8, true) => Some(Form::Dense),
            (Kind::Int4, true) => Some(Form::Packed),
            (Kind::Int4, false) => Some(Form::PackedAsymmetric),
            // Their zero points are not packed; no release has them.
            (Kind::Float8 | Kind::Int8, false) => None,
        }
    }
}

/// The rows and columns of blocks by which the scales of a weight of shape `weight`, which have shape
/// `scales`, are read, and the shape that they then have. `None` if they are not such scales.
pub(super) fn blocks(
    strategy: Option<Strategy>,
    weight: [u64; 2],
    scales: &[u64],
) -> Option<[u64; 2]> {
    let [rows, columns] = weight;
    let count: u64 = scales.iter().product();
    let block = match strategy {
        Some(Strategy::Block(block)) => block,
        Some(Strategy::Group(size)) => [1, size],
        Some(Strategy::Tensor) => [rows.max(1), columns.max(1)],
        Some(Strategy::Channel) => [1, columns.max(1)],
        None if count == 1 => [rows.max(1), columns.max(1)],
        None => [1, columns.max(1)],
    };
    let expected = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
    let fits = scales == expected
        // Without the dimensions of length 1.
        || matches!(strategy, Some(Strategy::Tensor) | None) && count == 1 && scales.len() < 2
        || matches!(strategy, Some(Strategy::Channel) | None) && scales == &expected[..1];
    fits.then_some(block)
}

/// Whether `dtype` holds scales.
pub(super) fn is_scale(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

/// The shape that `shape`, the tensor `X.weight_shape`, says, if the view made it.
pub(super) fn matrix(tensor: &Tensor) -> Option<[u64; 2]> {
    match *tensor.shape {
        [rows, columns] => Some([rows, columns]),
        _ => None,
    }
}
