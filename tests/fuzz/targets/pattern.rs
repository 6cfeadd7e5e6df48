//! Any text as a pattern of tensor names.
#![no_main]

use ckptfs::ops::Selection;
use ckptfs::shown::lines;
use ckptfs_fuzz::memory::bounded;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 4] = [
    "",
    "lm_head.weight",
    "model.layers.10.mlp.experts.127.down_proj.weight",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!",
];

fuzz_target!(|text: &str| {
    // A class takes kilobytes, whatever its length; the compiled form is bounded on its own.
    let selection = bounded(text.len(), 16 << 20, 16 << 10, || {
        Selection::new(None, &[], &[text.to_owned()])
    });
    match selection {
        Ok(selection) => bounded(text.len(), 32 << 20, 0, || {
            // What matches is up to the expression; it must only end, in bounded memory.
            for name in NAMES {
                selection.has_pattern_for(name);
            }
        }),
        Err(error) => {
            let start: String = text.chars().take(32).collect();
            assert!(
                error.to_string().contains(&*lines(&start)),
                "{error} does not name {text}"
            );
        }
    }
});
