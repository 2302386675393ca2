//! libFuzzer's way into `kubestream_fuzz::translate`; built without it, it runs the files it is given.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kubestream_fuzz::translate(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    kubestream_fuzz::run_files(kubestream_fuzz::translate)
}
