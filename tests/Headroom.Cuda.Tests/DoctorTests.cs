namespace Headroom.Cuda.Tests;

/// <summary>What a machine without a GPU, or with one, is told. Runs everywhere.</summary>
public class DoctorTests
{
    [Fact]
    public void ADeviceOrTwoLinesThatSayWhyNot()
    {
        using var device = CudaDevice.TryOpen(out string why);
        if (device == null) Assert.Equal(2, why.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        else
        {
            Assert.Equal("", why);
            var use = device.Memory();
            Assert.InRange(use.Reserved, 1, use.Total);
            Assert.True(use.Process >= use.Reserved, $"process {use.Process}, reserved {use.Reserved}");
        }
    }

    [Fact]
    public void AnAbsentGpuIsNamed()
    {
        Assert.Null(CudaDevice.TryOpen(out string why, new CudaOptions(Ordinal: 99)));
        Assert.Equal(2, why.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        var report = CudaDoctor.Examine(99);
        Assert.NotNull(report.Problem);
        Assert.NotEqual("", report.Remedy);
    }
}
