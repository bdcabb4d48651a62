// Prints Velero's CustomResourceDefinitions, as Velero installs them, as one JSON array.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	v1 "github.com/vmware-tanzu/velero/config/crd/v1/crds"
	v2alpha1 "github.com/vmware-tanzu/velero/config/crd/v2alpha1/crds"
)

func main() {
	crds := append(v1.CRDs, v2alpha1.CRDs...)
	if err := json.NewEncoder(os.Stdout).Encode(crds); err != nil {
		fmt.Fprintln(os.Stderr, "printing Velero's CRDs:", err)
		os.Exit(1)
	}
}
