# On a fresh Debian, Ubuntu or macOS with Rust: `make demo`, `make test`. What is missing is installed, and said.

.PHONY: demo test lint build deny

demo:
	@sh tests/setup.sh server
	cargo run --release -- demo

test:
	@sh tests/setup.sh server versions pgbouncer lints
	@$(MAKE) --no-print-directory lint
	cargo test --features failpoints

lint:
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings

build:
	cargo build --release

# Not part of `test`: cargo-deny is no part of Rust, and its advisory database cannot be had offline.
deny:
	cargo deny check licenses bans sources
