//! Reading a view in two ways.

use std::sync::Arc;

use ckptfs::error::Code;
use ckptfs::read::Reader;
use ckptfs::recipe::Plan;

/// Larger views are not read.
const MOST_READ: u64 = 1 << 20;

/// Holds that every file has the length it says, and the same bytes whole and in pieces, with and
/// without a cache.
pub fn read(plan: &Plan) {
    let bytes: u64 = plan.view.files().map(|(_, _, file)| file.len()).sum();
    if bytes > MOST_READ {
        return;
    }
    let reader = |cache| Reader::new(Arc::clone(&plan.view), cache);
    let (all, none) = (reader(1 << 20), reader(1));
    for (id, path, content) in plan.view.files() {
        let len = content.len() as usize;
        let (mut whole, mut pieces) = (vec![0; len + 1], vec![0; len]);
        let read = all.read_at(id, 0, &mut whole);
        let cut = len / 3;
        let (first, second) = pieces.split_at_mut(cut);
        let again = none
            .read_at(id, cut as u64, second)
            .and_then(|_| none.read_at(id, 0, first));
        match (read, again) {
            (Ok(read), Ok(_)) => {
                assert_eq!(read, len, "{} has the length it says", path.display());
                assert!(whole[..len] == *pieces, "{} read in pieces", path.display());
            }
            (Err(error), _) if [Code::NonFinite, Code::Inexact].contains(&error.code()) => {}
            (Err(error), _) | (_, Err(error)) => panic!("{}: {error}", path.display()),
        }
    }
}
