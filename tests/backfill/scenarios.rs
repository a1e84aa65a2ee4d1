//! Scenarios of scenarios.md: to come with their plans.
