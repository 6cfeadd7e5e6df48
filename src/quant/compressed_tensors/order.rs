//! Weights whose groups are not runs of columns (`actorder: "group"`): `X.weight_g_idx`, I32 `[cols]`, has the group of
//! each column. Codes are in the order of columns.
//!
//! compressed-tensors wrote and read these until it dropped them in August 2026 (`_process_quantization` of 0.12). It sorts
//! columns by group and takes runs of the group's size of them, so a group that has another number of columns would
//! have some under the scale of its neighbour: such an index is refused. Where all of it is −1, columns are in groups as usual.

use crate::catalog::NonFinite;
use crate::error::{Code, Error};
use crate::quant::compressed_tensors::format::INDEX;

/// What an index says of columns in groups of `group`, `groups` of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub groups: u64,
    pub group: u64,
}

impl Order {
    /// The group of each column, by the bytes of an index; `None` if they are in groups as usual.
    ///
    /// # Errors
    /// The first column that is of no group, or of one that has all of its columns already.
    pub(super) fn groups(self, index: &[u8]) -> Result<Option<Vec<usize>>, NonFinite> {
        let index = index.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b));
        if index.clone().all(|group| group == -1) {
            return Ok(None);
        }
        let mut room = vec![self.group; self.groups as usize];
        let groups = index.enumerate().map(|(column, said)| {
            let group = usize::try_from(said).ok();
            let group = group.filter(|group| room.get(*group).is_some_and(|room| *room > 0));
            let group = group.ok_or(NonFinite {
                row: 0,
                column: column as u64,
                value: said as f32,
                scale: None,
            })?;
            room[group] -= 1;
            Ok(group)
        });
        groups.collect::<Result<_, _>>().map(Some)
    }

    /// The error of an index with such a column.
    pub(super) fn fault(self, fault: &NonFinite) -> Error {
        let NonFinite { column, value, .. } = fault;
        let Order { groups, group } = self;
        let problem = format!(
            "{INDEX} has group {value} for column {column}; expected each of 0 to {} for {group} columns",
            groups.saturating_sub(1)
        );
        Error::new(Code::BadScales, problem)
    }
}
