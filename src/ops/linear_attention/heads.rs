//! The heads of linear attention, by config.json, and which rows of a projection are whose.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::catalog::{CONFIG_FILE, Catalog};
use crate::error::setting::LINEAR_ATTENTION;
use crate::error::{Code, Error, Hint, Result};
use crate::ops::linear_attention::form::{A, B, BA, QKV, QKVZ, Z};

/// What config.json says of them.
#[derive(Debug)]
pub(super) struct Heads {
    key_heads: u64,
    key_rows: u64,
    /// Rows of the value heads that belong to one key head, and the number of these.
    value_rows: u64,
    value_heads: u64,
}

/// A new projection: which rows of which old ones it has, in order.
pub(super) type Made = (&'static str, Vec<(&'static str, Range<u64>)>);

/// More than models have. Each head is a run of rows of its own, whatever a few bytes of config.json claim.
const MAX_HEADS: u64 = 4096;
const MAX_ROWS: u64 = 1 << 20;

impl Heads {
    /// # Errors
    /// If config.json does not say what they are.
    pub(super) fn from_catalog(catalog: &mut Catalog) -> Result<Self> {
        let source = catalog.report.sources[0].path.join(CONFIG_FILE);
        let Some(config) = catalog.config_mut()? else {
            return Err(unknown(
                &source,
                "it is missing, and says how many heads there are",
            ));
        };
        let path: PathBuf = config.path().to_owned();
        let number = |key: &str, max: u64| {
            let value = config.text_model(key).and_then(|value| value.as_u64());
            let problem = format!("{key} must be a number from 1 to {max}");
            let value = value.filter(|value| (1..=max).contains(value));
            value.ok_or_else(|| unknown(&path, &problem))
        };
        let key_heads = number("linear_num_key_heads", MAX_HEADS)?;
        let value_heads = number("linear_num_value_heads", MAX_HEADS)?;
        if !value_heads.is_multiple_of(key_heads) {
            let problem = format!(
                "linear_num_value_heads is {value_heads}, which is no multiple of linear_num_key_heads, {key_heads}"
            );
            return Err(unknown(&path, &problem));
        }
        let each = value_heads / key_heads;
        Ok(Heads {
            key_heads,
            key_rows: number("linear_key_head_dim", MAX_ROWS)?,
            value_rows: each * number("linear_value_head_dim", MAX_ROWS)?,
            value_heads: each,
        })
    }

    /// How many rows `projection` has.
    pub(super) fn rows(&self, projection: &str) -> u64 {
        let (key, value) = (self.key_rows, self.value_rows);
        let each = match projection {
            QKVZ => 2 * key + 2 * value,
            QKV => 2 * key + value,
            Z => value,
            BA => 2 * self.value_heads,
            _ => self.value_heads,
        };
        self.key_heads * each
    }

    /// The rows of one projection that are those of `len` from `start` on of every key head.
    fn of_each(
        &self,
        projection: &'static str,
        start: u64,
        len: u64,
    ) -> Vec<(&'static str, Range<u64>)> {
        let each = self.rows(projection) / self.key_heads;
        let starts = (0..self.key_heads).map(|head| head * each + start);
        starts
            .map(|start| (projection, start..start + len))
            .collect()
    }

    /// What becomes of the joined projections.
    pub(super) fn split(&self) -> Vec<Made> {
        let (key, value, heads) = (self.key_rows, self.value_rows, self.value_heads);
        let qkv = [(0, key), (key, key), (2 * key, value)];
        let qkv = qkv.map(|(start, len)| self.of_each(QKVZ, start, len));
        vec![
            (QKV, qkv.concat()),
            (Z, self.of_each(QKVZ, 2 * key + value, value)),
            (B, self.of_each(BA, 0, heads)),
            (A, self.of_each(BA, heads, heads)),
        ]
    }

    /// What becomes of those that are split.
    pub(super) fn joined(&self) -> Vec<Made> {
        let (key, value, heads) = (self.key_rows, self.value_rows, self.value_heads);
        let keys = self.key_heads * key;
        let mut made = vec![(QKVZ, Vec::new()), (BA, Vec::new())];
        for head in 0..self.key_heads {
            let rows = |before: u64, len: u64| before + head * len..before + (head + 1) * len;
            made[0].1.extend([
                (QKV, rows(0, key)),
                (QKV, rows(keys, key)),
                (QKV, rows(2 * keys, value)),
                (Z, rows(0, value)),
            ]);
            made[1].1.extend([(B, rows(0, heads)), (A, rows(0, heads))]);
        }
        made
    }
}

fn unknown(path: &Path, problem: &str) -> Error {
    let hint = Hint::leave_out(LINEAR_ATTENTION).or(format!("correct {CONFIG_FILE}"));
    Error::of_file(Code::BadConfig, path, problem).with_hint(hint)
}
