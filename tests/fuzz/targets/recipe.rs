//! Any text as a recipe that may name tiny models: what is wrong is told with the file, and what
//! can be planned has the same bytes however it is read.
#![no_main]

use std::fs;
use std::path::{Component, Path};
use std::sync::Arc;

use ckptfs::Error;
use ckptfs::read::Reader;
use ckptfs::recipe::{Places, Plan, ViewRequest};
use ckptfs_fuzz::DIRECTORY;
use ckptfs_fuzz::memory::bounded;
use ckptfs_fuzz::models::MODELS;
use libfuzzer_sys::fuzz_target;

/// Larger views are planned and not read.
const MOST_READ: u64 = 1 << 20;

fuzz_target!(|text: &[u8]| {
    let places = Places {
        named: MODELS.clone(),
        hub: None,
    };
    let path = DIRECTORY.path().join("recipe.yml");
    fs::write(&path, text).expect("the recipe can be written");
    // An alias of few bytes stands for values that are counted, up to 65,536.
    let request = bounded(text.len(), 32 << 20, 2 << 10, || {
        ViewRequest::from_recipe(&path, &places)
    });
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            assert!(error.to_string().contains("recipe.yml"), "{error}");
            return;
        }
    };
    if !request.sources().iter().all(|source| is_ours(source)) {
        return;
    }
    bounded(text.len(), 256 << 20, 16 << 10, || {
        if let Ok(plan) = request.plan() {
            read(&plan);
            emit(&request, &path);
        }
    });
});

/// Holds that what is written as a recipe says the same when it is read, without being told where
/// models are.
fn emit(request: &ViewRequest, path: &Path) {
    // It may be too long with all aliases written out.
    let Ok(emitted) = request.to_recipe() else {
        return;
    };
    fs::write(path, &emitted).expect("the recipe can be written");
    let again = ViewRequest::from_recipe(path, &Places::default());
    let again = again.unwrap_or_else(|error| panic!("{error}\n{emitted}"));
    assert_eq!(again.to_recipe().expect("it was said before"), emitted);
}

/// Whether it is a directory of this process: a recipe can name any.
fn is_ours(source: &Path) -> bool {
    match source.strip_prefix(DIRECTORY.path()) {
        Ok(inside) => inside
            .components()
            .all(|part| matches!(part, Component::Normal(_))),
        Err(_) => false,
    }
}

fn read(plan: &Plan) {
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
            (Err(Error::NonFinite { .. }), _) => {}
            (Err(error), _) | (_, Err(error)) => panic!("{}: {error}", path.display()),
        }
    }
}
