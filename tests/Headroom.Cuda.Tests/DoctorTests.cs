using Headroom.Cuda.Interop;

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

    [Theory]
    [InlineData(12, 12000, false)] // within a major version a driver runs what is newer than itself
    [InlineData(12, 13000, false)]
    [InlineData(13, 13010, false)]
    [InlineData(13, 12090, true)]
    [InlineData(12, 11080, true)]
    public void ALibraryOfALaterCudaThanTheDriversIsNamed(int library, int driver, bool fault)
    {
        var found = CudaDoctor.LibraryFault("NVRTC", library, driver);
        Assert.Equal(fault, found != null);
        if (found is not { } f) return;
        Assert.Contains($"CUDA {library}", f.Problem);
        Assert.Contains($"CUDA {driver / 1000}.{driver % 1000 / 10}", f.Problem);
        Assert.Equal(driver >= 12000, f.Remedy.Contains("-cu12"));
        Assert.Contains("pdate the NVIDIA driver", f.Remedy);
    }

    [Fact]
    public void AnArchitectureThatTheCompilerDoesNotKnowIsNamed()
    {
        Assert.Null(CudaDoctor.ArchitectureFault("NVRTC 12.1", [80, 86, 89, 90], "card", 90));
        Assert.Null(CudaDoctor.ArchitectureFault("NVRTC 12.1", [], "card", 120)); // it does not say
        var fault = CudaDoctor.ArchitectureFault("NVRTC 12.1", [80, 86, 89, 90], "card", 120)!.Value;
        Assert.Contains("NVRTC 12.1 does not compile for the card (sm_120)", fault.Problem);
        Assert.Contains("pip install --upgrade nvidia", fault.Remedy);
    }

    [Fact]
    public void ALibraryThatTheDriverRunsIsPreferredInEveryFolder()
    {
        string[] files = ["lib.so.13", "lib.so.12"];
        Assert.Equal(
            [("a", files[0]), ("a", files[1]), ("", files[0]), ("", files[1])],
            NativeLibraries.Candidates(["a", ""], files, 13));
        Assert.Equal(
            [("a", files[1]), ("", files[1]), ("a", files[0]), ("", files[0])],
            NativeLibraries.Candidates(["a", ""], files, 12));
        Assert.Equal([("", "libcuda.so.1")], NativeLibraries.Candidates([""], ["libcuda.so.1"], int.MaxValue));
    }

    [Fact]
    public void WhatIsNotKnownOfTheProcessIsMinusOne()
    {
        Assert.Equal(30, CardMemory.Growth(70, 100));
        Assert.Equal(0, CardMemory.Growth(70, 70));
        Assert.Equal(-1, CardMemory.Growth(70, 60));
        Assert.Equal(-1, CardMemory.Growth(-1, 60));
        Assert.Equal(-1, CardMemory.Growth(70, -1));
    }

    [Fact]
    public void AFullCardIsRefusedWithFreeAndNeededBytes()
    {
        Assert.Equal(
            "card has 12 MiB free; 600 MiB are needed before a model.",
            CardMemory.TooFullToOpen("card", 12 << 20, 600 << 20).Message);
        Assert.Equal(
            "card has too little memory free; 600 MiB are needed before a model.",
            CardMemory.TooFullToOpen("card", -1, 600 << 20).Message);
        var e = CardMemory.TooFullForPlan("card", 12 << 20, 600 << 20);
        Assert.Equal("The plan needs 600 MiB more on card, of which 12 MiB are free.", e.Message);
        Assert.Equal(2, e.ExitCode);
    }
}
