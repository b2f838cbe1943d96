// SPDX-License-Identifier: Apache-2.0

// Package drivertest is the contract of broker.Driver as tests: each driver runs
// all of them, against a provider of its kind. Only tests import it.
package drivertest
