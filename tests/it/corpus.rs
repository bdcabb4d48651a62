//! The corpus of the fuzz targets, replayed: every input that was ever worth keeping stays harmless.

#[path = "../../fuzz/entries.rs"]
mod entries;

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

#[test]
fn every_input_of_the_corpus_is_taken_without_harm() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut folders: Vec<String> =
        fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    folders.sort();
    let mut targets: Vec<&str> = entries::ALL.iter().map(|(name, _)| *name).collect();
    targets.sort_unstable();
    assert_eq!(folders, targets, "each target has a folder of inputs, and each folder a target");
    for (name, entry) in entries::ALL {
        let mut replayed = 0;
        for input in fs::read_dir(corpus.join(name)).unwrap() {
            let path = input.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            let survived = panic::catch_unwind(AssertUnwindSafe(|| entry(&bytes)));
            assert!(survived.is_ok(), "{} makes the target {name} panic", path.display());
            replayed += 1;
        }
        assert!(replayed > 0, "the corpus of {name} is empty");
    }
}

#[test]
fn each_target_has_a_program_of_its_own() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for (name, _) in entries::ALL {
        let program = fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("entries::{name}(input)")), "{name}");
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
    }
}
