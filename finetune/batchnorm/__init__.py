"""BatchNorm statistics: reading, measuring, comparing and proving them. Knows no recipe, dataset or MLflow."""
