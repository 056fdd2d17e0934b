//! YAML as Go's `sigs.k8s.io/yaml` writes it, because people compare it byte by byte.
