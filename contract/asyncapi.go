package contract

import "fmt"

type AsyncAPIOptions struct{ Title, Version string }

func (l List) AsyncAPI(AsyncAPIOptions) ([]byte, error) { return nil, fmt.Errorf("x") }
