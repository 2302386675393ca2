//! The names of images.
//!
//! Handles names only. No image is ever opened.

/// Returns the name of an image with its tag.
pub(crate) fn name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if image.is_empty() || last.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") }
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn an_image_without_a_tag_is_the_latest() {
        for (image, full) in [
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("localhost:5000/busybox", "localhost:5000/busybox:latest"),
            ("busybox@sha256:0123", "busybox@sha256:0123"),
            ("", ""),
        ] {
            assert_eq!((name(image), name(&name(image))), (full.to_owned(), full.to_owned()));
        }
    }
}
