//! Differences of tensors whose names differ by numbers alone, put together.

use indexmap::IndexMap;
use serde::{Serialize, Serializer};

use crate::diff::{Header, TensorDiff, Values, What};
use crate::provenance::Pattern;

/// Tensors that are different in the same way.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub what: What,
    #[serde(serialize_with = "as_text")]
    pub name: Pattern,
    pub tensors: usize,
    pub a: Option<Header>,
    pub b: Option<Header>,
    /// Of all of them as if they were one tensor.
    pub values: Option<Values>,
}

fn as_text<S: Serializer>(pattern: &Pattern, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(pattern)
}

/// The rows of `different`, in the order of their first tensors.
pub fn rows(different: &[TensorDiff]) -> Vec<Row> {
    let mut rows: IndexMap<_, Row> = IndexMap::new();
    for tensor in different {
        let name = Pattern::from_name(&tensor.name);
        let key = (
            tensor.what,
            name.shape().to_owned(),
            [&tensor.a, &tensor.b].map(|header| {
                let header = header.as_ref();
                header.map(|header| (header.dtype.to_string(), header.shape.clone()))
            }),
            tensor.values.is_some(),
        );
        let row = rows.entry(key).or_insert_with(|| Row {
            what: tensor.what,
            name,
            tensors: 0,
            a: tensor.a.clone(),
            b: tensor.b.clone(),
            values: tensor.values.map(|_| Values::default()),
        });
        row.tensors += 1;
        row.name.add(&tensor.name);
        if let (Some(joined), Some(values)) = (&mut row.values, &tensor.values) {
            joined.join(values);
        }
    }
    rows.into_values().collect()
}
