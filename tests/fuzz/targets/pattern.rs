//! Any text as a pattern of tensor names.
#![no_main]

use ckptfs::recipe::Selection;
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
        Selection::new(false, &[], &[text.to_owned()])
    });
    match selection {
        Ok(selection) => bounded(text.len(), 32 << 20, 0, || {
            let matched = NAMES.map(|name| selection.selects(name));
            let idle = selection.idle_patterns(&NAMES).count();
            assert_eq!(idle == 0, matched.contains(&true));
        }),
        Err(error) => {
            let start: String = text.chars().take(32).collect();
            assert!(
                error.to_string().contains(&start),
                "{error} does not name {text}"
            );
        }
    }
});
