//! What the objects are called: the same names in every store, readable, and safe in every one of them.

use std::fmt::Write as _;

use crate::{ActionKey, Digest};

/// The name of a blob: `cas/FUNCTION/FIRST TWO DIGITS/HASH-SIZE.zst`.
pub(super) fn of_blob(digest: &Digest) -> String {
    let hash = digest.hash_hex();
    format!("cas/{}/{}/{hash}-{}.zst", digest.function().name(), &hash[..2], digest.size_bytes())
}

/// The name of a result: `ac/FUNCTION/INSTANCE/FIRST TWO DIGITS/HASH-SIZE`.
pub(super) fn of_result(key: &ActionKey) -> String {
    let (hash, function) = (key.action.hash_hex(), key.action.function().name());
    let instance = instance(&key.instance);
    format!("ac/{function}/{instance}/{}/{hash}-{}", &hash[..2], key.action.size_bytes())
}

/// An instance's name may hold anything: all but letters, digits and `-` is written as `_` and two digits a byte.
fn instance(name: &str) -> String {
    let mut written = String::from("i");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' {
            written.push(char::from(byte));
        } else {
            write!(written, "_{byte:02x}").expect("writing to a string never fails");
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DigestFunction;

    #[test]
    fn names_say_what_they_name() {
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        assert_eq!(
            of_blob(&digest),
            "cas/sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad-3.zst"
        );
        let key = ActionKey { instance: "".into(), action: digest };
        assert!(of_result(&key).starts_with("ac/sha256/i/ba/ba7816"), "{}", of_result(&key));
    }

    #[test]
    fn no_two_instances_share_a_name_and_none_leaves_its_place() {
        assert_eq!(instance("main-2"), "imain-2");
        assert_eq!(instance("a/b"), "ia_2fb");
        assert_eq!(instance("a_2fb"), "ia_5f2fb");
        assert_eq!(instance("../é"), "i_2e_2e_2f_c3_a9");
    }
}
