//! Types are found by their numbers and names, and know their sizes.

use std::collections::HashSet;

use ckptfs::kernels::ggml::Type;

#[test]
fn numbers_and_names_lead_back_to_the_type() {
    for kind in Type::ALL {
        assert_eq!(Type::from_number(kind.number()), Some(kind));
        assert_eq!(Type::from_name(kind.name()), Some(kind));
        assert_eq!(Type::from_name(&kind.name().to_lowercase()), Some(kind));
    }
    let numbers: HashSet<u32> = Type::ALL.map(Type::number).into();
    assert_eq!(numbers.len(), Type::ALL.len());
    assert_eq!(Type::from_number(4), None);
    assert_eq!(Type::from_name("Q4_K_M"), None);
}

#[test]
fn a_row_is_whole_blocks() {
    assert_eq!(Type::Q4_K.row_bytes(512), Some(288));
    assert_eq!(Type::Q4_K.row_bytes(500), None);
    assert_eq!(Type::Q8_0.row_bytes(96), Some(102));
    assert_eq!(Type::F16.row_bytes(3), Some(6));
    assert_eq!(Type::F32.row_bytes(0), Some(0));
    assert_eq!(Type::F32.row_bytes(usize::MAX), None);
}
