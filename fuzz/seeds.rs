//! Writes the corpus of the differential tests as inputs of the fuzz targets. `rustc` alone builds it, beside the corpus
//! (scripts/fuzz.sh): seeds need none of the crates.

use std::path::Path;
use std::{fs, io};

fn main() -> io::Result<()> {
    for (target, messages) in [("http1_request", corpus::requests()), ("http1_response", corpus::responses())] {
        let folder = Path::new("fuzz/seeds").join(target);
        fs::create_dir_all(&folder)?;
        // Every seventh is enough to begin with. In front: no options, no splits.
        for (place, message) in messages.iter().filter(|message| message.len() < 1000).step_by(7).enumerate() {
            fs::write(folder.join(place.to_string()), [&[0], message.as_slice()].concat())?;
        }
    }
    Ok(())
}
