from bench.gpu.plan import main

raise SystemExit(main())
