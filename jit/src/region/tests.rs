use super::*;

/// A request for a page's code, entered at some offsets, which are all that is known of it.
pub(crate) fn request(ctx: Ctx, bytes: Box<[u8; PAGE]>, entries: Vec<u16>) -> Request {
    Request {
        page: 0x5000,
        ctx,
        features: Features::ALL,
        base: None,
        bytes,
        known: entries.clone(),
        entries,
        soft: vec![],
        covered: vec![],
        merge: None,
        beyond: None,
    }
}

#[test]
fn what_is_made_one_has_no_entries_in_the_middle_of_instructions() {
    // 0: add rax, 1; jmp rax. 10h: add rcx, 1; jmp back to 0.
    let mut bytes = Box::new([0x90u8; PAGE]);
    bytes[..6].copy_from_slice(&[0x48, 0x83, 0xc0, 1, 0xff, 0xe0]);
    bytes[16..22].copy_from_slice(&[0x48, 0x83, 0xc1, 1, 0xeb, 0xea]);
    let part = |entry: u16| Covered { entries: vec![entry], outs: vec![16 - entry] };
    let whole = request(Ctx(2 | Ctx::FLAT), bytes, vec![0]);
    let mut request = Request { known: (0..6).chain(16..22).collect(), covered: vec![part(16)], merge: Some(2), ..whole };
    assert_eq!(Region::find(&request).unwrap().entries, [0]);
    (request.known, request.covered, request.merge) = (vec![0, 16], vec![], None);
    assert_eq!(Region::find(&request).unwrap().entries, [0, 16], "blocks that have run may be what the jump goes to");
}
