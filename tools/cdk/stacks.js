// Writes the templates of tests/stacks: clusters on EC2 in the two shapes that CDK's documentation shows.
import { cpSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import * as cdk from "aws-cdk-lib";
import * as autoscaling from "aws-cdk-lib/aws-autoscaling";
import * as ec2 from "aws-cdk-lib/aws-ec2";
import * as ecs from "aws-cdk-lib/aws-ecs";
import * as iam from "aws-cdk-lib/aws-iam";

const into = fileURLToPath(new URL("../../tests/stacks/", import.meta.url));
const app = new cdk.App({ outdir: mkdtempSync(join(tmpdir(), "cdk-")), analyticsReporting: false });
const env = { account: "123456789012", region: "us-east-1" };

function stack(id) {
  const made = new cdk.Stack(app, id, { env, synthesizer: new cdk.LegacyStackSynthesizer() });
  const vpc = new ec2.Vpc(made, "Vpc", { availabilityZones: ["us-east-1a", "us-east-1b", "us-east-1c"], natGateways: 0 });
  return { made, vpc, cluster: new ecs.Cluster(made, "Cluster", { vpc }) };
}

function service(made, cluster, capacityProviderStrategies) {
  const taskDefinition = new ecs.Ec2TaskDefinition(made, "Web");
  taskDefinition.addContainer("web", { image: ecs.ContainerImage.fromRegistry("example/web:42"), memoryReservationMiB: 256 });
  new ecs.Ec2Service(made, "WebService", { cluster, taskDefinition, desiredCount: 2, capacityProviderStrategies });
}

// Cluster.addCapacity: a launch configuration, and a drain hook with a function of CDK's own.
{
  const { made, vpc, cluster } = stack("AddCapacity");
  cluster.addCapacity("Hosts", {
    instanceType: new ec2.InstanceType("t3.small"),
    machineImage: ecs.EcsOptimizedImage.amazonLinux2023(),
    desiredCapacity: 3,
    minCapacity: 1,
    maxCapacity: 5,
    keyName: "ops",
    vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC },
  });
  service(made, cluster);
}

// LaunchTemplate and AsgCapacityProvider: the version as a number, managed scaling, termination protection, draining.
{
  const { made, vpc, cluster } = stack("CapacityProvider");
  const launchTemplate = new ec2.LaunchTemplate(made, "HostsTemplate", {
    instanceType: new ec2.InstanceType("t3.small"),
    machineImage: ecs.EcsOptimizedImage.amazonLinux2023(),
    keyPair: ec2.KeyPair.fromKeyPairName(made, "KeyPair", "ops"),
    userData: ec2.UserData.forLinux(),
    requireImdsv2: true,
    securityGroup: new ec2.SecurityGroup(made, "HostsSecurityGroup", { vpc }),
    role: new iam.Role(made, "HostsRole", { assumedBy: new iam.ServicePrincipal("ec2.amazonaws.com") }),
  });
  const group = new autoscaling.AutoScalingGroup(made, "Hosts", {
    vpc,
    launchTemplate,
    minCapacity: 0,
    maxCapacity: 5,
    desiredCapacity: 3,
    newInstancesProtectedFromScaleIn: true,
    vpcSubnets: { subnetType: ec2.SubnetType.PUBLIC },
  });
  const provider = new ecs.AsgCapacityProvider(made, "HostsProvider", { autoScalingGroup: group });
  cluster.addAsgCapacityProvider(provider);
  service(made, cluster, [{ capacityProvider: provider.capacityProviderName, weight: 1 }]);
}

const assembly = app.synth();
for (const { templateFullPath, stackName } of assembly.stacks) {
  cpSync(templateFullPath, join(into, `${stackName}.template.json`));
}
