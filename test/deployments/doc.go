// SPDX-License-Identifier: Apache-2.0

// Package deployments tests what an operator installs: the files of
// deployments/ as they are, with the tools that he has.
//
// The handbook's commands run on a machine of their own: a systemd in
// namespaces, with the unit's rules in force. That takes root.
package deployments
