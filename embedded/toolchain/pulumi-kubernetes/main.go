// Command pulumi-resource-kubernetes is the official Kubernetes provider of Pulumi, built from its module.
//
// Upstream embeds copies of two files which it generates and does not track; the originals lie beside its main package. The
// build lays them over the two names below (pins.py, Borrowed), so nothing of upstream is copied into this repository.
package main

import (
	_ "embed"

	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/provider"
	"github.com/pulumi/pulumi-kubernetes/provider/v4/pkg/version"
)

//go:embed schema.json
var schema []byte

//go:embed terraform-mapping.json
var terraformMapping []byte

func main() {
	provider.Serve("kubernetes", version.Version, schema, terraformMapping)
}
