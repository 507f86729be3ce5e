"""Everything around a recalibration but the measuring: images, their scale, the gate, versions and the way back."""
