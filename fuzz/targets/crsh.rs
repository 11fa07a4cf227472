//! What ccache sends to its storage helper.
#![no_main]

use castwork::crsh::protocol;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let mut input = data;
        while let Ok(Some(_)) = protocol::read(&mut input).await {}
    });
});
