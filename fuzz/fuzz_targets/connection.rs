//! The libFuzzer target of `kubestream_fuzz::connection`. Built without libFuzzer, it runs the files on its command
//! line.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| kubestream_fuzz::connection(data));

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    kubestream_fuzz::run_files(kubestream_fuzz::connection)
}
