//! Names of ByteStream: what is read is written the same, and says nothing that a path could be made of.
#![no_main]

use castwork_cas::resource::check_instance_name;
use castwork_cas::{Digest, DigestFunction, ResourceName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = check_instance_name(text);
    let _ = text.parse::<Digest>();
    for function in DigestFunction::ALL {
        let Ok(name) = ResourceName::parse(text, function) else { continue };
        let (instance, digest) = match &name {
            ResourceName::Read(name) => (&name.instance, name.digest),
            ResourceName::Write(name) => (&name.instance, name.digest),
        };
        assert!(check_instance_name(instance).is_ok());
        assert!(digest.hash_hex().bytes().all(|byte| byte.is_ascii_hexdigit()));
        let written = match &name {
            ResourceName::Read(name) => name.to_string(),
            ResourceName::Write(name) => name.to_string(),
        };
        assert_eq!(ResourceName::parse(&written, digest.function()).as_ref(), Ok(&name), "{written}");
    }
});
